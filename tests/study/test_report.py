from qvit.study.report import write_report
from qvit.study import charts, report
import time, base64, re
SMALL="""
title: A & B <script>
datasets: [a.npz, b.npz, d.npz]
models:
  - {kind: [qvit, vit_matched, no_entangler], qubits: [4, 8], heads: 1}
  - {kind: unlu_matched, qubits: 4, heads: 1}
  - {kind: qvit, qubits: 4, heads: 1, layers: 2}
seeds: 2
teachers: {strong: [{arch: vit_4q1h, seeds: 2}]}
regimes: {scratch: , kd: {teacher: strong}}
"""
import pytest
@pytest.mark.parametrize("long",[False,True])
def test_x(make_study, monkeypatch, long):
    from matplotlib.text import Text
    import warnings
    def svg(figure):
        figure.savefig("/tmp/rep/x.png" , dpi=80)
        import shutil
        
        from matplotlib.axis import Axis
        hidden=set()
        for ax in figure.axes:
            for axis in (ax.xaxis,ax.yaxis):
                shown=axis._update_ticks()
                for tick in [*axis.get_major_ticks(),*axis.get_minor_ticks()]:
                    if tick not in shown: hidden |= {id(tick.label1),id(tick.label2)}
        t=[t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and id(t) not in hidden]
        W,H=figure.bbox.width,figure.bbox.height
        bad=[]
        for x in t:
            e=x.get_window_extent()
            if e.x0<-1 or e.y0<-1 or e.x1>W+1 or e.y1>H+1:
                bad.append((x.get_text()[:50],[round(v) for v in (e.x0,e.y0,e.x1,e.y1)],(W,H)))
        svg.n+=1
        shutil.copy("/tmp/rep/x.png",f"/tmp/rep/{'L' if long else 'S'}{svg.n:02d}.png")
        print("CHART",svg.n,bad)
        return "<svg></svg>"
    svg.n=0
    monkeypatch.setattr(charts,"_svg",svg)
    t=time.time()
    titles = {"a":"A data set with quite a long title of many words, longer than any"} if long else None
    classes= {"a":["class of a name that is very long indeed and longer","b","c"]} if long else None
    f=make_study(SMALL if not long else SMALL.replace("kind: unlu_matched, qubits","label: a model that somebody gave a long name to describe it, kind: unlu_matched, qubits").replace("regimes: {scratch: , kd:","regimes: {scratch: , knowledge_distillation_temperature_4:"), titles=titles, classes=classes, skill=lambda j: {"qvit":2,"vit_matched":1}.get(j.model.kind,1.5)+.5*bool(j.teachers))
    print("made",time.time()-t); t=time.time()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        w=write_report(f)
    print("report",time.time()-t)
