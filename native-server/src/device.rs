//! What computes: chosen by a flag among what was compiled in.

use burn::tensor::{Device, Tensor, TensorData};
use rectify_protocol::{Failure, Kind, unknown};

/// Bytes of memory of this machine, and how many of them are free, where the system says so.
pub fn memory() -> [Option<u64>; 2] {
    let told = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    ["MemTotal:", "MemAvailable:"].map(|name| {
        let line = told.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
    })
}

/// A device by its name on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceKind {
    /// The CPU: always there.
    #[default]
    Flex,
    /// A GPU through WebGPU's shading language, as a browser computes: Vulkan, Metal or DirectX below it.
    Wgpu,
    /// A GPU through Vulkan.
    Vulkan,
    /// An NVIDIA GPU.
    Cuda,
}

impl DeviceKind {
    const ALL: [Self; 4] = [Self::Flex, Self::Wgpu, Self::Vulkan, Self::Cuda];

    /// The cards that this program was built for, the fastest first.
    const COMPILED: &[Self] = &[
        #[cfg(feature = "cuda")]
        Self::Cuda,
        #[cfg(feature = "vulkan")]
        Self::Vulkan,
        #[cfg(feature = "wgpu")]
        Self::Wgpu,
    ];

    /// Every device that this program was built for.
    pub fn compiled() -> impl Iterator<Item = Self> {
        [Self::Flex].into_iter().chain(Self::COMPILED.iter().copied())
    }

    /// The name reports and flags use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Wgpu => "wgpu",
            Self::Vulkan => "vulkan",
            Self::Cuda => "cuda",
        }
    }

    /// The device itself, if this program was built with it.
    pub fn open(self) -> Result<Device, Failure> {
        match self {
            Self::Flex => Ok(Device::flex()),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => {
                an_adapter(wgpu::Backends::PRIMARY, "WebGPU")?;
                self.checked(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice))
            }
            #[cfg(feature = "vulkan")]
            Self::Vulkan => {
                an_adapter(wgpu::Backends::VULKAN, "Vulkan")?;
                self.checked(Device::vulkan(burn::tensor::DeviceKind::DefaultDevice))
            }
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
    #[cfg_attr(
        not(any(feature = "wgpu", feature = "vulkan", feature = "cuda")),
        allow(dead_code, reason = "flex needs no driver")
    )]
    fn checked(self, device: Device) -> Result<Device, Failure> {
        let tensor = |values| Tensor::<2>::from_data(TensorData::new(values, [N, N]), &device);
        let [a, b] = factors().map(tensor);
        let product = a.matmul(b).into_data().try_to_vec::<f32>().unwrap_or_default();
        self.trusted(&product).map(|()| device)
    }

    /// Whether that is the product of [`factors`].
    fn trusted(self, product: &[f32]) -> Result<(), Failure> {
        let [a, b] = factors();
        // Whole numbers of at most four digits: every order of adding gives the same.
        let expected = (0..N * N).map(|i| (0..N).map(|k| a[i / N * N + k] * b[k * N + i % N]).sum::<f32>());
        if expected.eq(product.iter().copied()) {
            return Ok(());
        }
        let problem = "gives wrong products here: its driver cannot run our programs";
        Err(Failure::new(Kind::Device, format!("{} {problem}", self.name())))
    }
}

/// Rows of the matrices by which a device is tried.
const N: usize = 64;

/// Two matrices of small whole numbers.
fn factors() -> [Vec<f32>; 2] {
    [5, 7].map(|step| (0..N * N).map(|i| ((i * step) % 17) as f32 - 8.0).collect())
}

/// Complains when burn, which asks in the same way and panics, would find none.
#[cfg(any(feature = "wgpu", feature = "vulkan"))]
fn an_adapter(backends: wgpu::Backends, through: &str) -> Result<(), Failure> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let asked = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..wgpu::RequestAdapterOptions::default()
    };
    let Err(error) = pollster::block_on(instance.request_adapter(&asked)) else { return Ok(()) };
    let found = pollster::block_on(instance.enumerate_adapters(backends));
    let found: Vec<String> = found.iter().map(|adapter| adapter.get_info().name).collect();
    let found = if found.is_empty() { "none".into() } else { found.join(", ") };
    let advice = "install the graphics card's driver, or compute with --device cpu";
    Err(Failure::new(Kind::Device, format!("no card can be used through {through}: {error}; found: {found}; {advice}")))
}

impl std::str::FromStr for DeviceKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "cpu" => return Ok(Self::Flex),
            "auto" => return Ok(Self::COMPILED.first().copied().unwrap_or_default()),
            "gpu" => {
                let none = "this program was built for no graphics card; build it with `cargo build --release -p \
                            rectify-server --features vulkan` (or wgpu, or cuda)";
                return Self::COMPILED.first().copied().ok_or_else(|| none.to_owned());
            }
            _ => {}
        }
        let names = ["cpu", "gpu", "auto"].into_iter().chain(Self::ALL.map(Self::name)).collect::<Vec<_>>();
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
        check("cpu", Ok(DeviceKind::Flex));
        let known = "known: cpu, gpu, auto, flex, wgpu, vulkan, cuda";
        check("vulcan", Err(&format!("unknown device \"vulcan\"; did you mean \"vulkan\"? {known}")));
    }

    #[cfg(not(any(feature = "wgpu", feature = "vulkan", feature = "cuda")))]
    #[test]
    fn auto_is_the_processor_where_there_is_nothing_else_and_gpu_says_so() {
        check("auto", Ok(DeviceKind::Flex));
        assert!("gpu".parse::<DeviceKind>().unwrap_err().contains("built for no graphics card"));
    }

    #[test]
    fn a_device_that_multiplies_is_trusted() {
        assert!(DeviceKind::Flex.checked(Device::flex()).is_ok());
    }

    #[test]
    fn a_device_that_answers_zeros_nothing_or_almost_right_is_refused() {
        let [a, b] = factors().map(|values| Tensor::<2>::from_data(TensorData::new(values, [N, N]), &Device::flex()));
        let mut product = a.matmul(b).into_data().try_to_vec::<f32>().unwrap();
        assert!(DeviceKind::Vulkan.trusted(&product).is_ok());
        product[N * N - 1] += 1.0;
        for wrong in [product, vec![0.0; N * N], vec![f32::NAN; N * N], Vec::new()] {
            let failure = DeviceKind::Vulkan.trusted(&wrong).unwrap_err();
            assert_eq!(failure.kind, Kind::Device);
            assert!(failure.message.contains("vulkan gives wrong products"), "{failure}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_device_that_was_not_compiled_in_says_how_to_build_it() {
        let failure = DeviceKind::Cuda.open().unwrap_err();
        assert!(failure.message.contains("--features cuda"), "{failure}");
    }
}
