# What the rules of tilt series and tomograms share: which there are, flags, memory and time.


def this_series(wildcards):
    """Return the plan's entry of the tilt series, or ready tomogram, that a job is for."""
    return PLAN.tilt_series[wildcards.session][wildcards.tilt_series]


def series_files(name, sessions=None):
    """Return an input function: the file of that name of every tilt series of the session, in order.

    With ``sessions``, nothing for a session that is none of these.
    """
    return lambda wildcards: [
        f"results/tomo/{wildcards.session}/{tilt_series}/{name}"
        for tilt_series in PLAN.tilt_series[wildcards.session]
        if sessions is None or wildcards.session in sessions
    ]


def tomogram_optics_flags(wildcards):
    """Return what is known of a session's microscope and tilts, as flags; headers say the rest."""
    session = PLAN.sessions[wildcards.session]
    star = (
        f"--star {shlex.quote(os.path.abspath(session.pattern))}"
        if session.is_star
        else ""
    )
    flags = {
        "pixel-size-angstrom": session.pixel_size_angstrom,
        "header-pixel-size-angstrom": session.header_pixel_size_angstrom,
        "voltage-kilovolt": session.voltage_kilovolt,
        "spherical-aberration-millimetre": session.spherical_aberration_millimetre,
        "amplitude-contrast": session.amplitude_contrast,
        "tilt-axis-degrees": session.tilt_axis_degrees,
        "tilt-hand": session.tilt_hand,
        "exposure-electrons-per-square-angstrom": session.exposure_electrons_per_square_angstrom,
    }
    return f"{star} {as_flags(flags)}".strip()


def halves_flags(wildcards):
    """Return the flags that name the halves of ready tomograms, where they are not found by their names."""
    session = PLAN.sessions[wildcards.session]
    globs = {
        "even-tomograms": session.even_tomograms,
        "odd-tomograms": session.odd_tomograms,
    }
    return " ".join(
        f"--{flag} {shlex.quote(glob)}" for flag, glob in globs.items() if glob
    )


def tilt_frames_flag(wildcards):
    """Return the flag that names the folder of movies, where it is not the mdoc files' own."""
    folder = PLAN.sessions[wildcards.session].tilt_frames
    return f"--frames {shlex.quote(folder)}" if folder else ""


def header_flag(wildcards):
    """Return the flag that says what headers state in place of the pixel size, where they are wrong."""
    session = PLAN.sessions[wildcards.session]
    return as_flags({"header-pixel-size-angstrom": session.header_pixel_size_angstrom})


def gain_flags(wildcards):
    """Return how the gain reference of tilts' movies is to be turned, as flags."""
    session = PLAN.sessions[wildcards.session]
    if not session.gain:
        return ""
    flags = {"gain-rotation": session.gain_rotation, "gain-flip": session.gain_flip}
    return as_flags(flags)


def tomogram_memory(base_mb, mb_per_megapixel):
    """Return a memory request that follows the images' size and grows with each attempt."""
    return lambda wildcards, threads, attempt: round(
        (base_mb + mb_per_megapixel * max(16, this_series(wildcards).megapixels))
        * (1 + 0.5 * (attempt - 1))
    )


def tomogram_minutes(base, per_megapixel):
    """Return a time limit that follows the images' size and doubles with each attempt."""
    return lambda wildcards, attempt: round(
        (base + per_megapixel * max(16, this_series(wildcards).megapixels))
        * 2 ** (attempt - 1)
    )


# What is segmented, picked and drawn: where the newest state of a tilt series stands.
TILT_STATE = "tilt_ctf.tsv" if CONFIG.tilt_ctf.enabled else "alignment.tsv"
SEGMENTED_IMAGE = {"raw": "tomogram.tsv", "denoised": "denoised.tsv"}[
    CONFIG.segment.image
]


def newest_tilts(wildcards):
    """Return the table of a tilt series that holds all that is known of its tilts."""
    return f"results/tomo/{wildcards.session}/{wildcards.tilt_series}/{TILT_STATE}"


def image_to_segment(wildcards):
    """Return the table of the tomogram that is segmented."""
    return f"results/tomo/{wildcards.session}/{wildcards.tilt_series}/{SEGMENTED_IMAGE}"


def tomograms_to_learn_from(wildcards):
    """Return the tables of the tomograms that a session's own denoiser is trained on: its first ones."""
    tables = series_files("tomogram.tsv")(wildcards)
    return tables[: CONFIG.denoise_tomogram.train_tomograms]


def session_denoiser_card(wildcards):
    """Return the card of a session's own denoiser, where one is asked for."""
    card = f"results/tomo/{wildcards.session}/denoiser/card.json"
    return [card] if CONFIG.denoise_tomogram.train else []


def tomogram_denoiser(wildcards):
    """Return the model that denoises a session's tomograms."""
    card = session_denoiser_card(wildcards)
    return str(Path(card[0]).parent) if card else CONFIG.denoise_tomogram.model


# Where particles are looked for by a template as well, the table of those.
MATCHED = "matched.tsv" if CONFIG.template_matching.template else ""


def matched_tables(wildcards):
    """Return the tables of the particles of a session that a template found, where there is one."""
    return series_files(MATCHED)(wildcards) if MATCHED else []


def tilts_to_match(wildcards):
    """Return the table that says which wedge and CTF a tomogram has, where it came from tilts."""
    known = wildcards.session in PLAN.with_tilt_series
    return [newest_tilts(wildcards)] if known else []


def segmentation_to_match(wildcards):
    """Return the table that says where no template is looked for, where it is to say so."""
    wanted = CONFIG.template_matching.outside
    table = f"results/tomo/{wildcards.session}/{wildcards.tilt_series}/segmented.tsv"
    return [table] if wanted else []


def outside_flags(wildcards):
    """Return the classes of the segmentation that no template is looked for in, as flags."""
    # Not of the input: what follows from that is no reason to run again.
    names = CONFIG.template_matching.outside
    return " ".join(f"--outside {shlex.quote(name)}" for name in names)


def segmented_flag(wildcards, input):
    """Return the flag of the segmentation's table, where it is asked for."""
    return " ".join(f"--segmented {shlex.quote(table)}" for table in input.segmented)


def wedge_flags(wildcards, input):
    """Return what says how a tomogram shows a particle, as flags."""
    if not input.tilts:
        return as_flags({"max-tilt-degrees": CONFIG.template_matching.max_tilt_degrees})
    weighting = switch("exposure-weighting", CONFIG.tilts.exposure_weighting)
    return (
        f"--tilts {shlex.quote(input.tilts[0])} --ctf {CONFIG.tomogram.ctf} {weighting}"
    )


TOMOGRAPHY = [*PLAN.with_tilt_series, *PLAN.with_tomograms]
DENOISED_TOMOGRAMS = [
    f"results/tomo/{session}/{tilt_series}/denoised.tsv"
    for session, listed in PLAN.tilt_series.items()
    for tilt_series in listed
    if CONFIG.denoise_tomogram.enabled
]
