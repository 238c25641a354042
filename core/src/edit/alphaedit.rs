//! AlphaEdit, <https://arxiv.org/abs/2410.02355>: MEMIT's facts, written only in directions that other keys leave free.

use faer::{Mat, MatRef, linalg::solvers::Solve};
use rectify_protocol::{AlphaEditSpec, Fact, Progress};

use super::{
    Input, Plan,
    memit::{Factors, Problem, below_zeros, spread},
    moments::Moment,
    plan::{filled, moment_of},
};
use crate::{Error, Result, linalg::product};

/// The changes that make `facts` true, beside those that earlier edits made.
///
/// # Errors
///
/// As [`super::plan`]; also when the second moment leaves no direction free.
pub async fn plan(
    input: &Input<'_>,
    facts: &[Fact],
    spec: &AlphaEditSpec,
    watch: &mut dyn FnMut(Progress),
) -> Result<Plan> {
    let layers = filled(spec.layers.as_ref());
    let mut notes = Vec::with_capacity(layers.len());
    for layer in layers {
        let free = Free::of(moment_of(input.moments, *layer)?, spec.nullspace_threshold)?;
        notes.push(format!("layer {layer}: {} of {} directions are free", free.basis.ncols(), free.basis.nrows()));
    }
    let solve = |problem: &Problem<'_>| {
        let free = Free::of(problem.moment, spec.nullspace_threshold)?;
        Ok(free.solve(problem.earlier, problem.keys, problem.residual, spec.l2))
    };
    let plan = spread(input, facts, layers, input.history, &spec.value, &solve, watch).await?;
    Ok(Plan { notes: [plan.notes, notes].concat(), ..plan })
}

/// The directions in which the keys of a corpus hardly ever point.
struct Free {
    /// Orthonormal: `[d_mlp, free]`.
    basis: Mat<f64>,
}

impl Free {
    /// Eigenvectors of `C` whose eigenvalue is below `threshold`.
    fn of(moment: &Moment, threshold: f64) -> Result<Self> {
        let eigen = moment.eigen()?;
        // Ascending.
        let n = eigen.values.iter().take_while(|value| **value < threshold).count();
        if n == 0 {
            return Err(Error::bad_input(format!(
                "nullspace_threshold is {threshold}, and no eigenvalue of the second moment is below it (the smallest \
                 is {:.3e}): no direction is free",
                eigen.values[0]
            )));
        }
        Ok(Self { basis: eigen.vectors.subcols(0, n).to_owned() })
    }

    /// `P A`, with `P = U₀ U₀ᵀ`.
    fn project(&self, a: MatRef<'_, f64>) -> Mat<f64> {
        product(self.basis.as_ref(), product(self.basis.transpose(), a).as_ref())
    }

    /// `ΔW = (P (K Kᵀ + Kₚ Kₚᵀ) + L2 I)⁻¹ P K R`: the paper's eq. 11, or its dual
    /// `P A (L2 I + Aᵀ P A)⁻¹ [0; R]` with `A = [Kₚ K]` while there are fewer facts than entries of a key.
    fn solve(&self, earlier: &Mat<f64>, keys: &Mat<f64>, residual: &Mat<f64>, l2: f64) -> Factors {
        let all: Mat<f64> = faer::concat![[earlier, keys]];
        if all.ncols() <= all.nrows() { self.dual(&all, residual, l2) } else { self.primal(&all, keys, residual, l2) }
    }

    fn dual(&self, all: &Mat<f64>, residual: &Mat<f64>, l2: f64) -> Factors {
        let left = self.project(all.as_ref()); // [d_mlp, m]
        let mut gram = product(all.transpose(), left.as_ref()); // [m, m]
        for i in 0..gram.nrows() {
            gram[(i, i)] += l2;
        }
        let right = gram.partial_piv_lu().solve(below_zeros(residual, all.ncols()));
        (left, right)
    }

    fn primal(&self, all: &Mat<f64>, keys: &Mat<f64>, residual: &Mat<f64>, l2: f64) -> Factors {
        let mut system = self.project(product(all.as_ref(), all.transpose()).as_ref()); // [d_mlp, d_mlp]
        for i in 0..system.nrows() {
            system[(i, i)] += l2;
        }
        (Solve::solve(&system.partial_piv_lu(), self.project(keys.as_ref())), residual.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edit::memit::tests::noise;

    /// Keys of a corpus that never point in 20 of 40 directions.
    fn free() -> (Free, Mat<f64>) {
        let used = product(noise(40, 20, 5).as_ref(), noise(20, 300, 6).as_ref());
        let c = product(used.as_ref(), used.transpose());
        let moment = Moment::given((0..1600).map(|i| c[(i / 40, i % 40)]).collect(), 40, 300);
        (Free::of(&moment, 1e-8).unwrap(), used)
    }

    #[test]
    fn a_projection_is_one_and_leaves_out_what_is_used() {
        let (free, used) = free();
        assert_eq!(free.basis.ncols(), 20);
        let a = noise(40, 5, 7);
        let once = free.project(a.as_ref());
        assert!((free.project(once.as_ref()) - &once).norm_max() < 1e-12);
        assert!(free.project(used.as_ref()).norm_max() < 1e-8);
    }

    #[test]
    fn the_dual_and_the_primal_agree() {
        let (free, used) = free();
        let (earlier, keys, residual) = (noise(40, 4, 8), noise(40, 3, 9), noise(3, 7, 10));
        let all = faer::concat![[&earlier, &keys]];
        let change = |(left, right): Factors| product(left.as_ref(), right.as_ref());
        let dual = change(free.dual(&all, &residual, 10.0));
        let primal = change(free.primal(&all, &keys, &residual, 10.0));
        assert!((&dual - &primal).norm_max() < 1e-12 * dual.norm_max().max(1.0));
        assert!(product(dual.transpose(), used.as_ref()).norm_max() < 1e-8, "what the corpus' keys answer stays");
    }
}
