"""YAML and Kubernetes objects to model values and back: the only reader of YAML, and the only place that knows manifests.

    bytes --documents--> plain data --check(fields)--> checked data --pods/services/...--> model values --to_json--> plain data

Decides what is right, what is defaulted and what is merely accepted. Refuses to know how anything is carried out.
Everything raises InputError with all the problems found, and nothing else, whatever the bytes.
"""

from netlab.manifest import kinds
from netlab.manifest.adapt import adapt_topology
from netlab.manifest.objects import Loaded, documents, object_from_json, read_objects
from netlab.manifest.scenario import Scenario, Step, probe_expectation, read_scenario
from netlab.manifest.schemas import schema
from netlab.manifest.selectors import parse_selector
from netlab.manifest.shown import to_json
from netlab.manifest.source import Source, read_paths
from netlab.manifest.topology import default_topology, read_topology
from netlab.manifest.unused import unused_options

__all__ = [
    "Loaded",
    "Scenario",
    "Source",
    "Step",
    "adapt_topology",
    "default_topology",
    "documents",
    "kinds",
    "object_from_json",
    "parse_selector",
    "probe_expectation",
    "read_objects",
    "read_paths",
    "read_scenario",
    "read_topology",
    "schema",
    "to_json",
    "unused_options",
]
