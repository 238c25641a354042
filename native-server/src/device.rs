//! What computes: chosen by a flag among what was compiled in.

use burn::tensor::{Device, Tensor, TensorData};
use rectify_protocol::{Failure, Kind, unknown};

/// A device by its name on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceKind {
    /// The CPU: always there.
    #[default]
    Flex,
    /// A GPU through Vulkan.
    Vulkan,
    /// An NVIDIA GPU.
    Cuda,
}

impl DeviceKind {
    const ALL: [Self; 3] = [Self::Flex, Self::Vulkan, Self::Cuda];

    /// The name reports and flags use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Vulkan => "vulkan",
            Self::Cuda => "cuda",
        }
    }

    /// The device itself, if this program was built with it.
    pub fn open(self) -> Result<Device, Failure> {
        match self {
            Self::Flex => Ok(Device::flex()),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => self.checked(Device::vulkan(burn::tensor::DeviceKind::DefaultDevice)),
            #[cfg(feature = "cuda")]
            Self::Cuda => self.checked(Device::cuda(0)),
            #[allow(unreachable_patterns, reason = "every device may be compiled in")]
            _ => Err(Failure::bad_input(format!(
                "this program was built without {name}; build it with `cargo build --release -p rectify-server --features {name}`",
                name = self.name()
            ))),
        }
    }

    /// A driver that cannot run a program may answer zeros and no error, so a device must multiply before it is trusted.
    #[cfg_attr(not(any(feature = "vulkan", feature = "cuda")), allow(dead_code, reason = "flex needs no driver"))]
    fn checked(self, device: Device) -> Result<Device, Failure> {
        const N: usize = 64;
        let numbers = |seed: usize| (0..N * N).map(|i| ((i * seed) % 17) as f32 - 8.0).collect::<Vec<_>>();
        let (a, b) = (numbers(5), numbers(7));
        let tensor = |values: &[f32]| Tensor::<2>::from_data(TensorData::new(values.to_vec(), [N, N]), &device);
        let product = tensor(&a).matmul(tensor(&b)).into_data().try_to_vec::<f32>();
        let expected = |i: usize| (0..N).map(|k| a[i / N * N + k] * b[k * N + i % N]).sum::<f32>();
        // Whole numbers of at most four digits: every order of adding gives the same.
        match product {
            Ok(product) if product.iter().enumerate().all(|(i, found)| *found == expected(i)) => Ok(device),
            _ => Err(Failure {
                kind: Kind::Device,
                message: format!("{} gives wrong products here: its driver cannot run our programs", self.name()),
            }),
        }
    }
}

impl std::str::FromStr for DeviceKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name);
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| unknown("device", text, &names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<DeviceKind, &str>) {
        assert_eq!(text.parse::<DeviceKind>(), expected.map_err(str::to_owned));
    }

    #[test]
    fn a_device_is_known_by_its_name() {
        check("flex", Ok(DeviceKind::Flex));
        check("cuda", Ok(DeviceKind::Cuda));
        check("vulcan", Err("unknown device \"vulcan\"; did you mean \"vulkan\"? known: flex, vulkan, cuda"));
        check("gpu", Err("unknown device \"gpu\"; known: flex, vulkan, cuda"));
    }

    #[test]
    fn a_device_that_multiplies_is_trusted() {
        assert!(DeviceKind::Flex.checked(Device::flex()).is_ok());
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_device_that_was_not_compiled_in_says_how_to_build_it() {
        let failure = DeviceKind::Cuda.open().unwrap_err();
        assert!(failure.message.contains("--features cuda"), "{failure}");
    }
}
