# shellcheck shell=bash disable=SC2034
# What this cluster is like. Set the first three; the rest may stay. Read by submit.sh.

# 1. The program: an image file (.sif, run with Apptainer), or the command brainlm-bids, or its path.
APP=brainlm-bids

# 2. sbatch options of one task of the array: one participant at a time on a CPU node.
CPU=(--time=02:00:00 --cpus-per-task=2 --mem=8G)

# 3. sbatch options of the one group job, with the GPU that your site names. Without: (--time=… --mem=…)
GPU=(--time=12:00:00 --cpus-per-task=8 --mem=32G --gres=gpu:1)

# Folder of `brainlm fetch` (atlas, template, weights), seen by all nodes.
RESOURCES=${BRAINLM_BIDS_HOME:-}
# Scratch for the work folders, seen by all nodes, so that a run that was stopped goes on where it
# was. Empty: a temporary folder of the node, which is removed.
WORK=
# Tasks that run at a time (0: as many as SLURM lets), and participants in a task, one after another.
AT_ONCE=0
PER_TASK=1
# More options of `apptainer run`, such as (--bind /project). --cleanenv and --nv are given anyway.
APPTAINER_OPTIONS=()
