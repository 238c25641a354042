use std::{fmt::Debug, future::poll_fn, task::Poll};

use burn::tensor::{Int, Tensor, TensorData};

use crate::{Error, Result};

/// The values of `tensor`, row-major: the only place where core waits for the device.
///
/// Yields once first, so that whoever drives the future can drop it between any two reads, also on a device
/// whose reads are ready at once.
pub(crate) async fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    read_data(tensor).await?.try_into_vec::<f32>().map_err(|error| failed(&error))
}

/// The same as they lie there, for anyone who only looks at many: `as_slice` copies nothing, a vector may have to.
///
/// Look before anything is computed with the tensor again: where card and processor share memory, this may be the tensor's
/// own, and an operation in place changes it.
pub(crate) async fn read_data<const D: usize>(tensor: Tensor<D>) -> Result<TensorData> {
    pause().await;
    tensor.into_data_async().await.map_err(|error| failed(&error))
}

/// What was read, as numbers.
pub(crate) fn floats(data: &TensorData) -> Result<&[f32]> {
    data.as_slice().map_err(|error| failed(&error))
}

/// The values of a tensor of token ids.
pub(crate) async fn read_ids<const D: usize>(tensor: Tensor<D, Int>) -> Result<Vec<u32>> {
    pause().await;
    let data = tensor.into_data_async().await.map_err(|error| failed(&error))?;
    Ok(data.iter::<u32>().collect())
}

/// What a device failed with, in a sentence: its causes without where in its program they came from.
fn failed(error: &impl Debug) -> Error {
    let told = format!("{error:?}");
    let mut causes: Vec<&str> = Vec::new();
    for line in told.lines().map(str::trim).take_while(|line| !line.starts_with("Backtrace")) {
        if !matches!(line, "" | "Caused by:") && !causes.contains(&line) {
            causes.push(line);
        }
    }
    let causes = causes.join(": ").trim_end_matches('.').to_owned();
    // Once it is lost, a device answers nothing any more.
    let gone = ["poisoned", "destroyed", "lost"].iter().any(|word| causes.contains(word));
    Error::Device(match gone {
        true => format!("{causes}; what was in its memory is gone: load the model again, or compute on the processor"),
        false => causes,
    })
}

/// Lets the driver of the future look up once.
async fn pause() {
    let mut paused = false;
    poll_fn(|context| {
        if std::mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_device_says_so_in_a_sentence_and_what_helps() {
        struct Told(&'static str);
        impl Debug for Told {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.0)
            }
        }
        let lost = "The device is poisoned\nCaused by:\n  The device is poisoned\nCaused by:\n  Destroyed: Device was \
                    destroyed.\nBacktrace:\nNo backtrace available";
        assert_eq!(
            failed(&Told(lost)).to_string(),
            "the device failed: The device is poisoned: Destroyed: Device was destroyed; what was in its memory is gone: load \
             the model again, or compute on the processor"
        );
        assert_eq!(failed(&Told("no room")).to_string(), "the device failed: no room");
    }
}
