# What correct_motion is told of a session of movies: flags of its command, and memory.

# EER has hundreds of raw frames, which are grouped to about as many as these.
MOST_FRACTIONS = 120


def movie_flags(wildcards):
    """Return what is known of a session's movies as flags."""
    session = PLAN.sessions[wildcards.session]
    flags = {
        "exposure-electrons-per-square-angstrom": session.exposure_electrons_per_square_angstrom,
        "total-exposure-electrons-per-square-angstrom": session.total_exposure_electrons_per_square_angstrom,
        "pre-exposure-electrons-per-square-angstrom": session.pre_exposure_electrons_per_square_angstrom,
        "frames": session.frames,
        "gain-rotation": session.gain_rotation if session.gain else None,
        "gain-flip": session.gain_flip if session.gain else None,
    }
    return as_flags(flags)


def camera_flags(wildcards):
    """Return where gain reference and map of bad pixels lie, as flags."""
    session = PLAN.sessions[wildcards.session]
    files = {"gain": session.gain, "defects": session.defects}
    return " ".join(
        f"--{flag} {shlex.quote(path)}" for flag, path in files.items() if path
    )


def has_eer(wildcards):
    """Return whether a session's movies are EER."""
    return is_eer(Path(PLAN.sessions[wildcards.session].pattern))


def sum_flags(wildcards):
    """Return how movies are aligned and summed, as flags."""
    motion = CONFIG.motion
    flags = {
        "output-pixel-size-angstrom": motion.output_pixel_size_angstrom,
        "group-frames": motion.group_frames,
        "first-frame": motion.first_frame,
        "last-frame": motion.last_frame,
        "halves-pixel-size-angstrom": (
            CONFIG.tiles.pixel_size_angstrom if motion.halves else None
        ),
    }
    # Upsampling concerns EER alone, and would run other movies again for nothing.
    if has_eer(wildcards):
        flags["eer-upsampling"] = motion.eer_upsampling
    switches = {
        "local": motion.local,
        "dose-weighting": motion.dose_weighting,
        "unweighted": motion.unweighted,
        "half-precision": motion.half_precision,
        "power-spectrum": motion.power_spectrum,
    }
    words = [switch(name, on) for name, on in switches.items()]
    return f"{as_flags(flags)} {' '.join(words)}"


def movie_memory(wildcards, threads, attempt):
    """Return a memory request that follows the size of a movie, which is held whole."""
    batch = this_batch(wildcards)
    frames = min(batch.frames, MOST_FRACTIONS)
    scale = CONFIG.motion.eer_upsampling**2 if has_eer(wildcards) else 1
    megapixels = batch.megapixels * scale
    return round((1000 + megapixels * (120 + 16 * frames)) * (1 + 0.5 * (attempt - 1)))
