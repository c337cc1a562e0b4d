"""The labels of RELION's tables (versions 3.1 to 5), and what their columns hold.

Names and types as ``relion_refine --print_metadata_labels`` prints them, and those that RELION 4 and 5 added.
"""

NUMBER, INTEGER, FLAG, TEXT = "a number", "a whole number", "0 or 1", "a word"

_NUMBERS = """
    rlnAccumMotionEarly rlnAccumMotionLate rlnAccumMotionTotal rlnAmplitudeContrast rlnAnglePsi
    rlnAnglePsiFlipRatio rlnAnglePsiPrior rlnAngleRot rlnAngleRotFlipRatio rlnAngleRotPrior rlnAngleTilt
    rlnAngleTiltPrior rlnAutopickFigureOfMerit rlnBeamTiltX rlnBeamTiltY rlnCoordinateX rlnCoordinateY
    rlnCoordinateZ rlnCtfAstigmatism rlnCtfBfactor rlnCtfFigureOfMerit rlnCtfIceRingDensity
    rlnCtfMaxResolution rlnCtfScalefactor rlnCtfValidationScore rlnDefocusAngle rlnDefocusU rlnDefocusV
    rlnDetectorPixelSize rlnHelicalTrackLength rlnHelicalTrackLengthAngst rlnImagePixelSize
    rlnLogLikeliContribution rlnMagMat00 rlnMagMat01 rlnMagMat10 rlnMagMat11 rlnMagnification
    rlnMaxValueProbDistribution rlnMicrographDoseRate rlnMicrographIceThickness
    rlnMicrographOriginalPixelSize rlnMicrographPixelSize rlnMicrographPreExposure rlnNormCorrection
    rlnOriginX rlnOriginXAngst rlnOriginXPrior rlnOriginXPriorAngst rlnOriginY rlnOriginYAngst
    rlnOriginYPrior rlnOriginYPriorAngst rlnParticleFigureOfMerit rlnParticleSelectZScore rlnPhaseShift
    rlnSphericalAberration rlnVoltage
"""
_INTEGERS = """
    rlnBeamTiltClass rlnClassNumber rlnEERGrouping rlnEERUpsampling rlnGroupNumber rlnHelicalTubeID
    rlnImageDimensionality rlnImageSize rlnMicrographFrameNumber rlnMicrographId rlnNrOfSignificantSamples
    rlnOpticsGroup rlnParticleId rlnParticleSelectionType rlnRandomSubset rlnSelected
"""
_TEXTS = """
    rlnCtfImage rlnCtfPowerSpectrum rlnEvenZernike rlnGroupName rlnImageName rlnImageOriginalName
    rlnMicrographCoordinates rlnMicrographDefectFile rlnMicrographGainName rlnMicrographMetadata
    rlnMicrographMovieName rlnMicrographName rlnMicrographNameEven rlnMicrographNameNoDW
    rlnMicrographNameOdd rlnMtfFileName rlnOddZernike rlnOpticsGroupName rlnOriginalParticleName
    rlnParticleName rlnReconstructImageName
"""
_TOMOGRAPHY_NUMBERS = """
    rlnAreTomoTiltAxisScore rlnAreTomoTiltangleOffset rlnCenteredCoordinateXAngst rlnCenteredCoordinateYAngst
    rlnCenteredCoordinateZAngst rlnOriginZAngst rlnOriginZPriorAngst rlnTomoDefocusSlope
    rlnTomoDeformationGridSizeX rlnTomoDeformationGridSizeY rlnTomoFrameCount rlnTomoHand rlnTomoIceNormalX
    rlnTomoIceNormalY rlnTomoIceNormalZ rlnTomoImportFractionalDose rlnTomoImportOffsetX rlnTomoImportOffsetY
    rlnTomoImportOffsetZ rlnTomoManifoldIndex rlnTomoNominalDefocus rlnTomoNominalStageTiltAngle
    rlnTomoNominalTiltAxisAngle rlnTomoParticleId rlnTomoRelativeIceThickness rlnTomoRelativeLuminance
    rlnTomoSizeX rlnTomoSizeY rlnTomoSizeZ rlnTomoSubTomosAre2DStacks rlnTomoSubtomogramBinning
    rlnTomoSubtomogramPsi rlnTomoSubtomogramRot rlnTomoSubtomogramTilt rlnTomoTiltMovieFrameCount
    rlnTomoTiltMovieIndex rlnTomoTiltSeriesPixelSize rlnTomoTomogramBinning rlnTomoTomogramThickness
    rlnTomoXShiftAngst rlnTomoXTilt rlnTomoYShiftAngst rlnTomoYTilt rlnTomoZRot
"""
_FLAGS = ("rlnAnglePsiFlip", "rlnCtfDataAreCtfPremultiplied", "rlnCtfDataArePhaseFlipped")

KIND = (
    dict.fromkeys(_NUMBERS.split(), NUMBER)
    | dict.fromkeys(_INTEGERS.split(), INTEGER)
    | dict.fromkeys(_FLAGS, FLAG)
    | dict.fromkeys(_TEXTS.split(), TEXT)
)
"""What the column of each label of the single-particle tables holds."""

TOMOGRAPHY_NUMBERS = frozenset(_TOMOGRAPHY_NUMBERS.split())
"""Labels that the tables of tomography have beside those, where RELION 5 reads numbers."""
