#!/usr/bin/env bash
# A cohort on Slurm: one task of an array for each participant, and the level group after them.
#
#   examples/slurm-cohort.sh BIDS OUT WORK [options of qsmref, such as -d atlas=PATH]
#
# CPUS, MEMORY and TASKS say what a task may use and how many run at a time; SBATCH_ARGUMENTS goes
# to sbatch (partition, account, time); QSMREF is the command, which may be a container:
#   QSMREF="apptainer run qsmref.sif" examples/slurm-cohort.sh ...
# GROUP_ARGUMENTS goes to the level group, for example "--group-column group".
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,9p' "$0" | cut -c3- >&2; exit 2; }
bids=$(realpath "$1") out=$(realpath -m "$2") work=$(realpath -m "$3")
shift 3
cpus=${CPUS:-4} memory=${MEMORY:-8G} tasks=${TASKS:-20} qsmref=${QSMREF:-qsmref}
mkdir -p "$out/logs" "$work/slurm"

# Participants are the folders, by their labels; those that are done already cost a few seconds.
list=$work/slurm/participants.txt
find -L "$bids" -mindepth 1 -maxdepth 1 -type d -name 'sub-*' -printf '%f\n' | sort > "$list"
count=$(wc -l < "$list")
[ "$count" -gt 0 ] || { echo "no participants in $bids" >&2; exit 66; }

# Each task has a scratch folder of its own below WORK: tasks share nothing but OUT, in which
# qsmref takes turns. The options are quoted once more, since the task is a text.
options=$(printf ' %q' "$@")
array=$(sbatch --parsable ${SBATCH_ARGUMENTS:-} --job-name=qsmref --array="1-$count%$tasks" \
    --cpus-per-task="$cpus" --mem="$memory" --output="$work/slurm/%a.log" <<TASK
#!/usr/bin/env bash
set -euo pipefail
label=\$(sed -n "\${SLURM_ARRAY_TASK_ID}p" $(printf %q "$list"))
exec $qsmref $(printf '%q %q' "$bids" "$out") participant --participant-label "\$label" \
    --work-dir $(printf %q "$work")/"\$label" --nprocs $cpus --mem $memory $options
TASK
)

# afterany: the group level compares those that have finished, and lists the others with the cause.
group=$(sbatch --parsable ${SBATCH_ARGUMENTS:-} --job-name=qsmref-group \
    --dependency="afterany:${array%%;*}" --cpus-per-task=1 --mem="$memory" \
    --output="$work/slurm/group.log" <<GROUP
#!/usr/bin/env bash
exec $qsmref $(printf '%q %q' "$bids" "$out") group --work-dir $(printf %q "$work")/group ${GROUP_ARGUMENTS:-}
GROUP
)
echo "$count participants: job ${array%%;*}; then the group: job ${group%%;*}; logs: $work/slurm"
