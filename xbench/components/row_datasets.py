"""Built-in datasets that are made of rows. Their factories are imported when they are used."""

from __future__ import annotations

from xbench.components.specs import DatasetSpec

BREAST_CANCER = DatasetSpec(
    factory="xbench.components.tabular:build_breast_cancer",
    summary="569 breast masses, benign or malignant: 30 measurements each",
    reference="W. Wolberg, O. Mangasarian, N. Street and W. Street, Breast Cancer Wisconsin (Diagnostic), "
    "UCI Machine Learning Repository (1993), https://doi.org/10.24432/C5DW2B; licence: CC BY 4.0",
)
DIGITS = DatasetSpec(
    factory="xbench.components.tabular:build_digits",
    summary="1,797 handwritten digits of 8 x 8 pixels, as rows of 64 numbers",
    reference="E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (its test set), UCI "
    "Machine Learning Repository (1998), https://doi.org/10.24432/C50P49; licence: CC BY 4.0",
)
WINE = DatasetSpec(
    factory="xbench.components.tabular:build_wine",
    summary="178 wines of three cultivars: 13 chemical measurements each",
    reference="S. Aeberhard and M. Forina, Wine, UCI Machine Learning Repository (1992), "
    "https://doi.org/10.24432/C5PC7J; licence: CC BY 4.0",
)
DIABETES = DatasetSpec(
    factory="xbench.components.tabular:build_diabetes",
    summary="442 diabetes patients: the disease's progression from ten measurements (regression)",
    reference="B. Efron, T. Hastie, I. Johnstone and R. Tibshirani, Least angle regression, Annals of "
    "Statistics 32 (2004), 407-499, https://doi.org/10.1214/009053604000000067",
)
LEAST_SQUARES = DatasetSpec(
    factory="xbench.components.convex:build_least_squares",
    summary="linear regression of known minimum, with a chosen condition number",
)
LOGISTIC_REGRESSION = DatasetSpec(
    factory="xbench.components.convex:build_logistic_regression",
    summary="logistic regression of known minimum, with a chosen condition number",
)
MATRIX_FACTORISATION = DatasetSpec(
    factory="xbench.components.matrix_factorisation:build_matrix_factorisation",
    summary="entries of a noisy matrix of low rank, to be recovered by two factors",
)
ROSENBROCK = DatasetSpec(
    factory="xbench.components.landscapes:build_rosenbrock",
    summary="Rosenbrock's function: a curved valley; minimum 0",
    reference="H. Rosenbrock, An automatic method for finding the greatest or least value of a function, The "
    "Computer Journal 3 (1960), 175-184, https://doi.org/10.1093/comjnl/3.3.175",
)
BEALE = DatasetSpec(
    factory="xbench.components.landscapes:build_beale",
    summary="Beale's function of two coordinates: flat with steep walls; minimum 0",
    reference="J. More, B. Garbow and K. Hillstrom, Testing unconstrained optimization software, ACM "
    "Transactions on Mathematical Software 7 (1981), 17-41, https://doi.org/10.1145/355934.355936",
)
RASTRIGIN = DatasetSpec(
    factory="xbench.components.landscapes:build_rastrigin",
    summary="Rastrigin's function: a bowl with many local minima; minimum 0",
    reference="H. Muehlenbein, M. Schomisch and J. Born, The parallel genetic algorithm as function "
    "optimizer, Parallel Computing 17 (1991), 619-632, https://doi.org/10.1016/S0167-8191(05)80052-3",
)
QUADRATIC = DatasetSpec(
    factory="xbench.components.landscapes:build_quadratic",
    summary="ill-conditioned quadratic function; minimum 0",
)
POISSON_1D = DatasetSpec(
    factory="xbench.components.poisson:build_poisson_1d",
    summary="Poisson's equation on an interval, for a physics-informed network",
    reference="M. Raissi, P. Perdikaris and G. Karniadakis, Physics-informed neural networks, Journal of "
    "Computational Physics 378 (2019), 686-707, https://doi.org/10.1016/j.jcp.2018.10.045",
)
POISSON_2D = DatasetSpec(
    factory="xbench.components.poisson:build_poisson_2d",
    summary="Poisson's equation on the unit square, for a physics-informed network",
    reference="M. Raissi, P. Perdikaris and G. Karniadakis, Physics-informed neural networks, Journal of "
    "Computational Physics 378 (2019), 686-707, https://doi.org/10.1016/j.jcp.2018.10.045",
)
