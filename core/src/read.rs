use std::{future::poll_fn, task::Poll};

use burn::tensor::{Int, Tensor, TensorData};

use crate::{Error, Result};

/// The values of `tensor`, row-major: the only place where core waits for the device.
///
/// Yields once first, so that whoever drives the future can drop it between any two reads, also on a device
/// whose reads are ready at once.
pub(crate) async fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    read_data(tensor).await?.try_into_vec::<f32>().map_err(|error| Error::Device(format!("{error:?}")))
}

/// The same as they lie there, for anyone who only looks at many: `as_slice` copies nothing, a vector may have to.
pub(crate) async fn read_data<const D: usize>(tensor: Tensor<D>) -> Result<TensorData> {
    pause().await;
    tensor.into_data_async().await.map_err(|error| Error::Device(format!("{error:?}")))
}

/// What was read, as numbers.
pub(crate) fn floats(data: &TensorData) -> Result<&[f32]> {
    data.as_slice().map_err(|error| Error::Device(format!("{error:?}")))
}

/// The values of a tensor of token ids.
pub(crate) async fn read_ids<const D: usize>(tensor: Tensor<D, Int>) -> Result<Vec<u32>> {
    pause().await;
    let data = tensor.into_data_async().await.map_err(|error| Error::Device(format!("{error:?}")))?;
    Ok(data.iter::<u32>().collect())
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
