"""From a dataset's name to checked arrays: registry, files, arrays, the phantom and augmentation.

Import from the modules: `qvit.data.registry` is light, `qvit.data.arrays` brings torch.
"""
