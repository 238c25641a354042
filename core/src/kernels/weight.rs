//! How a matrix is stored.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

/// Inputs that share a scale.
pub(crate) const BLOCK: usize = 32;
/// Codes in a word.
pub(crate) const PACKED: usize = 4;
/// The largest code.
const LARGEST: f32 = 127.0;

/// A matrix `[d_in, d_out]`.
#[derive(Clone)]
pub(crate) enum Weight {
    /// In floats of one type, whichever way it lies.
    Floats(Tensor<2>),
    /// In whole numbers of eight bits.
    Blocks(Blocks),
}

/// A matrix `[d_in, d_out]` in whole numbers from −127 to 127, with one scale for [`BLOCK`] inputs of an output:
/// `W[i, o] = code · scale`.
#[derive(Clone)]
pub(crate) struct Blocks {
    /// [`PACKED`] codes in a word, the first in its lowest bits, and zeros behind the last input up to a whole block:
    /// `[d_out, padded / 4]`.
    pub words: Tensor<2, Int>,
    /// `[d_out, padded / 32]`
    pub scales: Tensor<2>,
    /// How many inputs there are.
    pub d_in: usize,
}

impl Weight {
    /// Where it is.
    pub fn device(&self) -> Device {
        match self {
            Self::Floats(matrix) => matrix.device(),
            Self::Blocks(blocks) => blocks.scales.device(),
        }
    }

    /// Maps of the same inputs as one, their outputs side by side.
    ///
    /// # Panics
    ///
    /// When they are stored differently, or there are none.
    pub fn side_by_side(parts: Vec<Self>) -> Self {
        let (mut floats, mut blocks) = (Vec::new(), Vec::new());
        for part in parts {
            match part {
                // Turned, because that is how they lie in memory.
                Self::Floats(matrix) => floats.push(matrix.transpose()),
                Self::Blocks(part) => blocks.push(part),
            }
        }
        assert!(floats.is_empty() || blocks.is_empty(), "matrices side by side are stored alike");
        let Some(first) = blocks.first() else { return Self::Floats(Tensor::cat(floats, 0).transpose()) };
        let d_in = first.d_in;
        let (words, scales) = blocks.into_iter().map(|part| (part.words, part.scales)).unzip();
        Self::Blocks(Blocks { words: Tensor::cat(words, 0), scales: Tensor::cat(scales, 0), d_in })
    }
}

impl Blocks {
    /// Rounds each number to the nearest that its block has: the largest of a block is 127 of its scale.
    ///
    /// Shapes: `values [d_out, d_in]`, row by row.
    pub fn of(values: &[f32], d_in: usize, device: &Device) -> Self {
        let (d_out, padded) = (values.len() / d_in, d_in.next_multiple_of(BLOCK));
        let mut words = Vec::with_capacity(d_out * padded / PACKED);
        let mut scales = Vec::with_capacity(d_out * padded / BLOCK);
        let mut codes = [0u8; BLOCK];
        for block in values.chunks(d_in).flat_map(|inputs| inputs.chunks(BLOCK)) {
            let scale = block.iter().fold(0.0f32, |most, x| most.max(x.abs())) / LARGEST;
            let code = |x: f32| (x / scale).round().clamp(-LARGEST, LARGEST) as i8;
            codes.fill(0);
            if scale > 0.0 {
                codes.iter_mut().zip(block).for_each(|(to, x)| *to = code(*x).cast_unsigned());
            }
            words.extend(codes.as_chunks::<PACKED>().0.iter().map(|four| i32::from_le_bytes(*four)));
            scales.push(scale);
        }
        let words = TensorData::new(words, [d_out, padded / PACKED]);
        let scales = TensorData::new(scales, [d_out, padded / BLOCK]);
        Self { words: Tensor::from_data(words, (device, DType::I32)), scales: Tensor::from_data(scales, device), d_in }
    }
}
