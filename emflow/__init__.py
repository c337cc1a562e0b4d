"""emflow: large-scale cryo-EM and cryo-ET pipelines, from micrographs to RELION-ready particles."""

from importlib.metadata import version

__version__ = version("emflow")
