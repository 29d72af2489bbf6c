# The same in a Snakebids workflow: its inputs say which participants there are.
#
#   snakemake -s snakebids.smk --cores 8 --config bids=/data/bids out=/data/out options="--model 111M --offline"
from snakemake.exceptions import WorkflowError

try:
    from snakebids import generate_inputs
except ImportError:
    raise WorkflowError("snakebids is not installed: pip install snakebids, or use Snakefile")

inputs = generate_inputs(
    bids_dir=config["bids"],
    pybids_inputs={
        "bold": {
            "filters": {"suffix": "bold", "extension": ".nii.gz"},
            "wildcards": ["subject", "session", "task", "acquisition", "run"],
        }
    },
)
config["participants"] = list(inputs["bold"].entities["subject"])


include: "Snakefile"


# rules of an included file are no default
rule everything:
    default_target: True
    input:
        rules.all.input,
