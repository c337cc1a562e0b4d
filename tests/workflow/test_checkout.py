"""The Snakemake habit: no session folder, but a checkout with its config/ edited, and its profiles."""

from workflow.conftest import command, planned

from emflow.resources import pipeline_root

SNAKEFILE = """
rule all:
    input: expand("{n}.done", n=range(3))

rule on_gpu:
    output: "{n}.done"
    resources: gpu=1
    shell: "mkdir only_one && sleep 0.3 && rmdir only_one && touch {output}"
"""


def test_a_profile_of_the_checkout_runs_its_session(checkout):
    command(checkout, "snakemake", "--workflow-profile", "profiles/ci")
    assert (checkout / "results/spa/by_hand/relion/particles.star").is_file()
    assert (checkout / "results/spa/by_hand/summary.json").is_file()
    assert planned(checkout, "--workflow-profile", "profiles/ci") == {}


def test_a_workstation_gives_its_gpu_to_one_job_at_a_time(tmp_path):
    """mkdir fails where another job is at work: two at one time would end the run."""
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    command(tmp_path, "snakemake", "--profile", str(pipeline_root() / "profiles/local"), "--retries", "0")
    assert len(list(tmp_path.glob("*.done"))) == 3
