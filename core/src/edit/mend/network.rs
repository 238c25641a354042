//! The hypernetwork: two low-rank layers for each shape of matrix, shared by the matrices of that shape.

use burn::tensor::{Device, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rectify_protocol::{MendTraining, Precision};

use super::{
    super::{Delta, WeightDelta},
    parameter::Parameter,
    statistics::{Normal, Statistics},
};
use crate::{
    kernels::matmul,
    model::{LoadedModel, Model, WeightSite},
    random::standard_normal,
};

/// Blocks, from the last, whose MLPs are edited.
const BLOCKS: usize = 3;

/// What MEND learnt for a model.
#[derive(Clone)]
pub struct Hypernetwork {
    /// The hash of the model it belongs to.
    pub(super) model_hash: String,
    /// How the model's matrices were stored while it was trained.
    pub(super) precision: Precision,
    pub(super) parameters: Vec<Parameter>,
    /// What is trained.
    pub learnt: Learnt,
    /// What gradients look like, one for each network.
    pub statistics: Vec<Statistics>,
    /// How it came about.
    pub origin: Origin,
    /// SHA-256 of the file it was read from, hexadecimal.
    pub(super) hash: Option<String>,
}

/// How a hypernetwork came about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origin {
    /// The settings it is trained with.
    pub settings: MendTraining,
    /// The facts it is trained on, by the name the edge gave them.
    pub data: String,
    /// SHA-256 of those facts; hexadecimal.
    pub data_hash: String,
    /// Steps so far.
    pub steps: usize,
}

/// The numbers that training changes.
#[derive(Clone)]
pub struct Learnt {
    /// One network for each shape of matrix, in the order in which the shapes first occur.
    pub nets: Vec<Net>,
    /// α, a step size for each matrix: `[1, parameters]`.
    pub alpha: Tensor<2>,
}

/// A network for matrices `[d_in, d_out]`; its width is `d_in + d_out`.
#[derive(Clone)]
pub struct Net {
    /// `[d_in, d_out]` of its matrices.
    pub shape: [usize; 2],
    /// First and last layer.
    pub layers: [Layer; 2],
}

/// `h ← h + max((U V h + b) · scale + shift, 0)`: MEND eq. 3, with a rectifier on every layer, as released.
#[derive(Clone)]
pub struct Layer {
    /// `[width, rank]`
    pub u: Tensor<2>,
    /// `[rank, width]`
    pub v: Tensor<2>,
    /// `[1, width]`
    pub bias: Tensor<2>,
    /// `[modes, width]`
    pub scale: Tensor<2>,
    /// `[modes, width]`
    pub shift: Tensor<2>,
}

impl Hypernetwork {
    /// The matrices that MEND edits in a model: those of the last three blocks' MLPs.
    pub fn sites_of(model: &Model) -> Vec<WeightSite> {
        let layers = model.shape().layers;
        model.mlp_sites(layers.saturating_sub(BLOCKS)..layers).collect()
    }

    /// One that has learnt nothing: U = 0, so that gradients pass as they are, and V from the standard normal
    /// distribution.
    pub fn new(of: &LoadedModel, sites: &[WeightSite], origin: Origin) -> Self {
        let (parameters, shapes) = layout(&of.model, sites);
        let device = of.model.device();
        let mut rng = ChaCha8Rng::seed_from_u64(origin.settings.seed);
        let modes = |net: usize| parameters.iter().filter(|parameter| parameter.net == net).count();
        let nets = shapes.iter().enumerate().map(|(net, shape)| {
            let rank = origin.settings.rank.min(shape[0] + shape[1]);
            let mut layer = || Layer::new(shape[0] + shape[1], rank, modes(net), &mut rng, &device);
            Net { shape: *shape, layers: [layer(), layer()] }
        });
        let nets = nets.collect();
        let alpha = Tensor::full([1, parameters.len()], origin.settings.edit_lr, &device);
        let statistics = shapes.iter().map(|shape| Statistics::blank(*shape)).collect();
        let learnt = Learnt { nets, alpha };
        Self {
            model_hash: of.hash.clone(),
            precision: of.precision,
            parameters,
            learnt,
            statistics,
            origin,
            hash: None,
        }
    }

    /// The matrices it edits, in order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The same, as places in a model.
    pub fn sites(&self) -> Vec<WeightSite> {
        self.parameters.iter().map(|parameter| parameter.site).collect()
    }

    /// Statistics that have seen nothing.
    pub fn blank_statistics(&self) -> Vec<Statistics> {
        self.learnt.nets.iter().map(|net| Statistics::blank(net.shape)).collect()
    }

    /// Which α belongs to each matrix: its own.
    pub fn order_of_list(&self) -> Vec<usize> {
        (0..self.parameters.len()).collect()
    }

    /// Which α the released code takes for each matrix: it walks through the model, where gate, up and down stand in
    /// this order, and counts.
    pub fn order_of_definition(&self) -> Vec<usize> {
        let place = |site: &WeightSite| self.parameters.iter().filter(|other| other.site < *site).count();
        self.parameters.iter().map(|parameter| place(&parameter.site)).collect()
    }

    /// `ΔW = scale · α · Σ x̃ d̃ᵀ` of each matrix that has tokens; see [`Learnt::changes`].
    pub fn changes(&self, normal: &[Option<Normal>], alphas: &[usize], scale: f64) -> Vec<WeightDelta> {
        self.learnt.changes(&self.parameters, normal, alphas, scale)
    }

    /// SHA-256 of the file it was read from, hexadecimal; `None` where it was not read from one.
    pub fn hash(&self) -> Option<&str> {
        self.hash.as_deref()
    }

    /// What a report should say of it.
    pub fn note(&self) -> String {
        let Origin { data, steps, .. } = &self.origin;
        let hash = self.hash().unwrap_or("not from a file");
        format!("hypernetwork {hash}, trained for {steps} steps on {data}")
    }
}

/// Which network and mode each matrix has, and the networks' shapes.
pub(super) fn layout(model: &Model, sites: &[WeightSite]) -> (Vec<Parameter>, Vec<[usize; 2]>) {
    let mut shapes: Vec<[usize; 2]> = Vec::new();
    let mut parameters: Vec<Parameter> = Vec::with_capacity(sites.len());
    for site in sites {
        let shape = model.weight(*site).dims();
        let net = shapes.iter().position(|known| *known == shape).unwrap_or_else(|| {
            shapes.push(shape);
            shapes.len() - 1
        });
        let mode = parameters.iter().filter(|earlier| earlier.net == net).count();
        parameters.push(Parameter { site: *site, net, mode });
    }
    (parameters, shapes)
}

impl Learnt {
    /// The changes of the matrices that have tokens: `left = scale · α x̃ᵀ`, `right = d̃`.
    ///
    /// `alphas` names the α of each matrix.
    pub fn changes(
        &self,
        parameters: &[Parameter],
        normal: &[Option<Normal>],
        alphas: &[usize],
        scale: f64,
    ) -> Vec<WeightDelta> {
        let all = parameters.iter().zip(normal).zip(alphas);
        all.filter_map(|((parameter, normal), alpha)| {
            let (x, d) = self.nets[parameter.net].transform(normal.as_ref()?, parameter.mode);
            let step = self.alpha.clone().narrow(1, *alpha, 1) * scale; // [1, 1]
            Some(WeightDelta { site: parameter.site, delta: Delta::LowRank { left: x.transpose() * step, right: d } })
        })
        .collect()
    }

    /// Every tensor, in the order of [`Self::names`].
    pub fn tensors(&self) -> Vec<Tensor<2>> {
        let layers = self.nets.iter().flat_map(|net| &net.layers);
        let of_layers = layers.flat_map(|Layer { u, v, bias, scale, shift }| [u, v, bias, scale, shift]);
        of_layers.chain([&self.alpha]).cloned().collect()
    }

    /// What each tensor is called in a file.
    pub fn names(&self) -> Vec<String> {
        let layers =
            self.nets.iter().flat_map(|net| (0..net.layers.len()).map(move |j| format!("{}.layer{j}", net.name())));
        let of_layers =
            layers.flat_map(|layer| ["U", "V", "bias", "scale", "shift"].map(|part| format!("{layer}.{part}")));
        of_layers.chain(["alpha".into()]).collect()
    }

    /// The same arrangement of other tensors.
    ///
    /// # Panics
    ///
    /// When there are fewer.
    pub fn with(&self, tensors: impl IntoIterator<Item = Tensor<2>>) -> Self {
        let mut tensors = tensors.into_iter();
        let mut next = || tensors.next().expect("as many tensors as there are names");
        let nets = self.nets.iter().map(|net| {
            let mut layer = || Layer { u: next(), v: next(), bias: next(), scale: next(), shift: next() };
            Net { shape: net.shape, layers: [layer(), layer()] }
        });
        let nets = nets.collect();
        Self { nets, alpha: next() }
    }

    /// Each tensor by itself.
    pub(super) fn map(&self, f: impl Fn(Tensor<2>) -> Tensor<2>) -> Self {
        self.with(self.tensors().into_iter().map(f))
    }

    /// The sum of the squares of all numbers: `[1]`.
    pub(super) fn squared_norm(&self) -> Tensor<1> {
        let squares = self.tensors().into_iter().map(|tensor| (tensor.clone() * tensor).sum());
        squares.reduce(|sum, square| sum + square).expect("there is α at least")
    }

    /// Tensor by tensor.
    pub(super) fn zip(&self, other: &Self, f: impl Fn(Tensor<2>, Tensor<2>) -> Tensor<2>) -> Self {
        self.with(self.tensors().into_iter().zip(other.tensors()).map(|(ours, theirs)| f(ours, theirs)))
    }
}

impl Net {
    /// What its tensors are called in a file.
    pub fn name(&self) -> String {
        format!("net_{}x{}", self.shape[0], self.shape[1])
    }

    /// Normalised tokens to transformed ones, x̃ `[tokens, d_in]` and d̃ `[tokens, d_out]`.
    pub fn transform(&self, normal: &Normal, mode: usize) -> (Tensor<2>, Tensor<2>) {
        let [d_in, d_out] = self.shape;
        let h = Tensor::cat(vec![normal.x.clone(), normal.d.clone()], 1); // [tokens, width]
        let h = self.layers.iter().fold(h, |h, layer| layer.forward(h, mode));
        (h.clone().narrow(1, 0, d_in), h.narrow(1, d_in, d_out))
    }
}

impl Layer {
    fn new(width: usize, rank: usize, modes: usize, rng: &mut ChaCha8Rng, device: &Device) -> Self {
        let normal: Vec<f32> = (0..rank * width).map(|_| standard_normal(rng)).collect();
        Self {
            u: Tensor::zeros([width, rank], device),
            v: Tensor::from_data(TensorData::new(normal, [rank, width]), device),
            bias: Tensor::zeros([1, width], device),
            scale: Tensor::ones([modes, width], device),
            shift: Tensor::zeros([modes, width], device),
        }
    }

    /// `[tokens, width]` to the same.
    fn forward(&self, h: Tensor<2>, mode: usize) -> Tensor<2> {
        let low = matmul(h.clone(), self.v.clone().transpose()); // [tokens, rank]
        let wide = matmul(low, self.u.clone().transpose()) + self.bias.clone(); // [tokens, width]
        let of_mode = |rows: &Tensor<2>| rows.clone().narrow(0, mode, 1); // [1, width]
        h + rectify(wide * of_mode(&self.scale) + of_mode(&self.shift))
    }
}

/// `max(z, 0)`, with slope 1 at exactly 0, where everything is while U = 0: with slope 0 nothing would ever be learnt.
fn rectify(z: Tensor<2>) -> Tensor<2> {
    let passes = z.clone().inner().greater_equal_scalar(0.0).float();
    z * passes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rectifier_has_slope_one_at_zero() {
        let z = Tensor::<2>::from_data([[-1.0, 0.0, 2.0]], &Device::flex()).autodiff().require_grad();
        let out = rectify(z.clone());
        let gradient = z.grad(&out.clone().sum().backward()).unwrap();
        assert_eq!(gradient.into_data().try_to_vec::<f32>().unwrap(), [0.0, 1.0, 1.0]);
        assert_eq!(out.into_data().try_to_vec::<f32>().unwrap(), [0.0, 0.0, 2.0]);
    }
}
