"""What training must not learn from: known by entry, by name and by what a file says."""

import gzip
import json
from pathlib import Path

import pytest

from emflow.cli.training import library_of
from emflow.cli.training_options import Simulation
from emflow.errors import BadInputError, SettingError
from emflow.io.atomic_model_files import atomic_model_files, check_learnable
from emflow.kept_apart import kept_apart
from emflow.resources import PACKAGE

ATOMS = "\n".join(
    f"ATOM  {n:5d}  CA  ALA A{n:4d}    {4.0 * n:8.3f}{0.0:8.3f}{0.0:8.3f}  1.00 30.00           C"
    for n in range(1, 12)
)


def header(entry: str) -> str:
    return f"HEADER    CHAPERONE                               14-JAN-04   {entry}"


@pytest.mark.parametrize(
    ("entry", "said", "name"),
    [
        ("1PMA", "", "20S proteasome"),
        ("mine", "ARCHAEAL PROTEASOME", "20S proteasome"),
        ("2cg9", "", "Hsp90"),
        ("x", "Heat shock protein HSP 90-alpha", "Hsp90"),
        ("5ftj", "", "p97"),
        ("1qvr", "", "p97"),  # ClpB: rings of AAA+ domains as well
        ("3h84", "CRYSTAL STRUCTURE OF GET3", "p97"),
        ("x", "Transitional endoplasmic reticulum ATPase", "p97"),
        ("rubisco_spinach", "", "RuBisCO"),
        ("x", "RIBULOSE-1,5-BISPHOSPHATE   CARBOXYLASE LARGE CHAIN", "RuBisCO"),
        ("x", "RIBULOSE BISPHOSPHATE CARBOXYLASE", "RuBisCO"),
        ("1IGT", "", "antibody"),
        ("x", "Nb6 nanobody", "antibody"),
        ("4v4r_30S", "", "ribosome"),
        ("apoferritin_ca_apo_sym", "", "apoferritin"),
        ("1s3x", "THE CRYSTAL STRUCTURE OF THE HUMAN HSP70 ATPASE DOMAIN", None),
        ("3d2f", "HEAT SHOCK PROTEIN HOMOLOG SSE1; HEAT SHOCK 70 KDA PROTEIN 1", None),
        ("5gjv", "MAMMALIAN VOLTAGE-GATED CALCIUM CHANNEL CAV1.1", None),
    ],
)
def test_known_by_entry_by_name_and_by_relatives(entry, said, name):
    assert kept_apart(entry, said) == name


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("2cg9.pdb", ATOMS),
        ("mine.pdb", f"{header('2CG9')}\n{ATOMS}"),
        # A word that is broken over two lines, and one that a remark or a citation has, which does not count.
        ("mine.pdb", f"TITLE     STRUCTURE OF HEAT SHOCK PROTEIN\nTITLE    2 90 FROM YEAST\n{ATOMS}"),
        ("mine.cif", "data_X\n_entry.id   2CG9\n#\n_atom_site.id\n"),
        ("mine.cif", "data_X\nloop_\n_entity.id\n_entity.pdbx_description\n1 'Endoplasmin'\n#\n"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_refused_whatever_the_file_is_called(tmp_path: Path, file: str, text: str, zipped: bool) -> None:
    if zipped:
        with gzip.open(tmp_path / f"{file}.gz", "wt") as stream:
            stream.write(text)
    else:
        (tmp_path / file).write_text(text)
    with pytest.raises(SettingError, match=rf"--models: .*{file}.* is kept apart, as Hsp90: .*--allow-kept"):
        library_of(Simulation(models=tmp_path))


def test_what_others_say_of_it_does_not_count(tmp_path: Path) -> None:
    text = f"{header('1S3X')}\nREMARK   1 TITL   HSP90 AND ITS FRIENDS\n{ATOMS}\nTITLE     HSP90\n"
    (tmp_path / "a.pdb").write_text(text)
    cif = "data_X\n_entry.id 1S3X\n#\n_citation.title 'Hsp90'\n#\n_atom_site.id\n_struct.title 'Hsp90'\n"
    (tmp_path / "b.cif").write_text(cif)
    check_learnable(atomic_model_files(tmp_path))


def test_allowed_for_a_model_of_one_s_own_and_told_in_its_card(tmp_path: Path) -> None:
    pytest.importorskip("gemmi")
    (tmp_path / "2cg9.pdb").write_text(ATOMS)
    library, told = library_of(Simulation(models=tmp_path, allow_kept_apart=True))
    assert [structure.name for structure in library.models] == ["2cg9"]
    assert told["kept_apart"] == []
    (tmp_path / "2cg9.pdb").rename(tmp_path / "1s3x.pdb")
    assert "p97" in library_of(Simulation(models=tmp_path))[1]["kept_apart"]


def test_a_broken_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.pdb.gz").write_bytes(b"no gzip")
    with pytest.raises(BadInputError, match=r"a\.pdb\.gz cannot be read"):
        check_learnable(atomic_model_files(tmp_path))


@pytest.mark.parametrize("model", sorted(path.parent.name for path in PACKAGE.glob("models/*/card.json")))
def test_no_shipped_model_learned_what_it_is_judged_by(model: str) -> None:
    """But for two that came in before the rule, which the notes of cards of micrographs' models name."""
    card = json.loads((PACKAGE / "models" / model / "card.json").read_text())
    learned = {name: kept_apart(name, "") for name in card["training"].get("atomic_models", {})}
    wrong = {name for name, kept in learned.items() if kept is not None}
    assert wrong <= {"3h84", "8zpm"}
    if card["task"] in ("pick", "denoise"):
        assert all(name in card["notes"] for name in wrong)
