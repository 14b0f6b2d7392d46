"""Distillation: training students on the outputs of a teacher, in the same training loop as every other run."""

from qvit.distill.guide import DistillationObjective, DistillConfig, TeacherGuide
from qvit.distill.many import AskedStudent, distill_many
from qvit.distill.options import resolve_distillation
from qvit.distill.pipeline import Distillation, DistillationConfig, distill
from qvit.distill.teacher import Teacher
from qvit.distill.teacher_cache import CacheWarning, TeacherOutputs, teacher_outputs

__all__ = [
    "AskedStudent",
    "CacheWarning",
    "DistillConfig",
    "Distillation",
    "DistillationConfig",
    "DistillationObjective",
    "Teacher",
    "TeacherGuide",
    "TeacherOutputs",
    "distill",
    "distill_many",
    "resolve_distillation",
    "teacher_outputs",
]
