#!/usr/bin/env bash
# Runs participants on a real Slurm of one node, through both plugins, as an array, and with faults.
#
#   tests/slurm.sh RECIPE FOLDER BIN
#
# RECIPE has up.sh and down.sh (start and stop Slurm in the folder given) and may be "-" where Slurm
# runs already; FOLDER is for everything that is made; BIN has qsmref.
set -euo pipefail
recipe=$1 bin=$(realpath "$3")
mkdir -p "$2"
folder=$(realpath "$2")
here=$(cd "$(dirname "$0")/.." && pwd)
if [ "$recipe" != - ]; then
    recipe=$(realpath "$recipe")
    [ -x "$(command -v slurmctld)" ] || { echo "Slurm is not installed (see $recipe/up.sh)" >&2; exit 127; }
    rm -rf "$folder/slurm"
    trap 'kill ${watch:-} 2> /dev/null || :; bash "$recipe/down.sh" "$folder/slurm"' EXIT
    bash "$recipe/up.sh" "$folder/slurm"
    export SLURM_CONF=$folder/slurm/etc/slurm.conf
fi
# Not every batch system or container sets it; nipype's plugin needs it.
unset LOGNAME
export OMP_NUM_THREADS=1
cd "$folder"
rm -rf bids work-* out-* ./*.log
"$bin/qsmref-phantom" dataset bids --matrix 40 48 36 --voxel-size 5 5 5 --seed 1 --participants 2 > /dev/null
common=(-d truth=bids/derivatives/truth --skip-bids-validation --nprocs 2 --omp-nthreads 1 --sloppy)

run() {  # NAME FLAGS: a command with results in out-NAME
    local name=$1
    shift
    "$bin/qsmref" bids "out-$name" participant -w "work-$name" "${common[@]}" "$@" > "$name.log" 2>&1
}
tables() {  # NAME: the tables of sub-01 are those of the bare run
    (cd out-bare && find sub-01 -name '*.tsv' | sort) | while read -r table; do
        cmp "out-bare/$table" "out-$1/$table" || { echo "$1: $table differs"; exit 1; }
    done
    echo "$1: $(tail -1 "$1.log") Tables are those of the bare run."
}

run bare
echo "bare: $(tail -1 bare.log)"

# What the queue was asked for, seen from outside.
( while sleep 0.3; do squeue --noheader --format='%j memory=%m cpus=%c' || true; done ) > queue.txt 2> /dev/null &
watch=$!
for plugin in SLURM SLURMGraph; do
    printf 'plugin: %s\nplugin_args: {poll_seconds: 0.5}\n' "$plugin" > "$plugin.yml"
    run "$plugin" --use-plugin "$plugin.yml" --participant-label 01
    tables "$plugin"
    run "$plugin" --use-plugin "$plugin.yml" --participant-label 01
    grep -q ' inversion' "$plugin.log" && { echo "$plugin: the second run did work"; exit 1; }
    echo "$plugin again: nothing was submitted. $(tail -1 "$plugin.log")"
done
kill "$watch"
grep inversion queue.txt | sort -u | sed 's/^/asked for: /'

# A node that the cluster cannot have, and one whose job is killed.
for plugin in SLURM SLURMGraph; do
    printf 'plugin: %s\nplugin_args: {poll_seconds: 0.5, retry_timeout: 0.1, sbatch_args: --mem=900G}\n' "$plugin" > refused.yml
    code=0
    run "refused-$plugin" --use-plugin refused.yml --participant-label 01 || code=$?
    echo "$plugin, refused: $(tail -1 "refused-$plugin.log")"
    [ "$code" = 70 ]
    code=0
    run "killed-$plugin" --use-plugin "$plugin.yml" --participant-label 01 &
    command=$!
    until job=$(squeue --noheader --states=running --format='%A %j' | awk '/inversion$/ {print $1}') && [ -n "$job" ]; do
        kill -0 "$command"
        sleep 0.1
    done
    scancel --signal=KILL --full "$job"
    wait "$command" || code=$?
    echo "$plugin, killed: $(tail -1 "killed-$plugin.log")"
    [ "$code" = 70 ]
    [ -z "$(squeue --noheader)" ]
    run "killed-$plugin" --use-plugin "$plugin.yml" --participant-label 01
    tables "killed-$plugin"
done

# The example: an array over participants into one folder, then the group.
CPUS=1 MEMORY=3G QSMREF=$bin/qsmref "$here/examples/slurm-cohort.sh" bids out-array work-array "${common[@]:0:3}" --sloppy
until [ -z "$(squeue --noheader)" ]; do sleep 1; done
tail -qn 1 work-array/slurm/1.log > array.log
tables array
tail -qn 1 work-array/slurm/[0-9]*.log
tail -n 1 work-array/slurm/group.log
[ -s out-array/group/atlas-truth_desc-roi_Chimap.tsv ]
[ "$(cut -f 3 out-array/logs/participant-status.tsv | grep -c completed)" = 2 ]
echo "test-slurm: all as it should be"
