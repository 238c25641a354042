//! `rectify stats import`: statistics that other programs gathered.

use std::{fs, io::Write, path::Path};

use safetensors::SafeTensors;
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::{
    desk::{check_refused, corpus, rectify},
    jobs::statics,
};

/// An array as NumPy writes it, version 1.0 of its format.
fn npy(kind: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend(u16::try_from(header.len()).expect("short").to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(bytes);
    file
}

fn npz(path: &Path, arrays: &[(&str, Vec<u8>)]) -> String {
    let mut archive = ZipWriter::new(fs::File::create(path).expect("writes"));
    for (name, array) in arrays {
        archive.start_file(format!("{name}.npy"), SimpleFileOptions::default()).expect("writes");
        archive.write_all(array).expect("writes");
    }
    archive.finish().expect("writes");
    path.display().to_string()
}

fn floats(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect()
}

/// The matrix in a file of ours, and how many tokens it says.
pub fn moment(path: &Path) -> (Vec<f64>, String) {
    let bytes = fs::read(path).expect("reads");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("safetensors");
    let tokens = header.metadata().as_ref().expect("metadata")["tokens"].clone();
    let tensor = SafeTensors::deserialize(&bytes).expect("safetensors");
    let tensor = tensor.tensor("moment").expect("the matrix");
    let wide = tensor.dtype() == safetensors::Dtype::F64;
    let read = |chunk: &[u8]| match wide {
        true => f64::from_le_bytes(chunk.try_into().expect("eight bytes")),
        false => f64::from(f32::from_le_bytes(chunk.try_into().expect("four bytes"))),
    };
    (tensor.data().chunks_exact(if wide { 8 } else { 4 }).map(read).collect(), tokens)
}

#[test]
fn sums_of_rome_s_program_become_the_average_that_ours_gathers() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let text = |name: &str| at(name).display().to_string();
    let facts = format!("{}/facts/demo_zsre.json", statics());
    fs::write(at("corpus.txt"), corpus()).expect("writes");
    let (text_file, ours, theirs) = (text("corpus.txt"), text("ours"), text("theirs"));
    let gather =
        ["stats", "--model", "demo-nano", "--text", &text_file, "--layers", "1", "--tokens", "4000", "--out", &ours];
    assert!(rectify(&gather).status.success());
    let (matrix, tokens) = moment(&at("ours/moment.1.safetensors"));
    let (count, width) = (tokens.parse::<i64>().expect("a number"), matrix.len().isqrt());
    let sums: Vec<f64> = matrix.iter().map(|mean| mean * count as f64).collect();
    let shape = format!("({width}, {width})");
    let whole = |name: &str, sums: &[f64], shape: &str, count: i64| {
        npz(
            &at(name),
            &[
                ("mom2.mom2", npy("<f4", shape, &floats(sums))),
                ("mom2.count", npy("<i8", "()", &count.to_le_bytes())),
                ("sample_size", npy("<i8", "()", &1_i64.to_le_bytes())),
            ],
        )
    };
    let file = whole("transformer.h.1.mlp.c_proj_float32_mom2_1.npz", &sums, &shape, count);
    let import = |file: &str, layer: &str| -> Vec<String> {
        ["stats", "import", file, "--model", "demo-nano", "--layer", layer, "--out", &theirs]
            .map(str::to_owned)
            .to_vec()
    };
    let words = import(&file, "1");
    let output = rectify(&words.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (imported, told) = moment(&at("theirs/moment.1.safetensors"));
    assert_eq!(told, tokens);
    let largest = matrix.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
    // Their sums are kept in 32 bits.
    assert!(matrix.iter().zip(&imported).all(|(ours, theirs)| (ours - theirs).abs() <= 1e-6 * largest));
    let edit = ["edit", "--model", "demo-nano", "--facts", &facts, "--index", "0", "--method", "rome", "--layer", "1"];
    let edited = rectify(&[&edit[..], &["--covariance", &theirs, "--allow-harm", "--json"]].concat());
    assert!(edited.status.success(), "{}", String::from_utf8_lossy(&edited.stderr));

    let refused = |file: &str, layer: &str, parts: &[&str]| {
        let words = import(file, layer);
        check_refused(&words.iter().map(String::as_str).collect::<Vec<_>>(), parts);
    };
    refused(&file, "99", &["--layer", "is 99"]);
    refused(&whole("count.npz", &sums, &shape, 0), "1", &["mom2.count is 0"]);
    refused(&whole("shape.npz", &sums[..4], "(2, 2)", count), "1", &["mom2.mom2 is [2, 2]"]);
    refused(&whole("huge.npz", &sums[..4], "(999999999, 999999999, 999999999)", count), "1", &["at most"]);
    refused(&whole("cut.npz", &sums[..9], &shape, count), "1", &["breaks off"]);
    let mut odd = sums.clone();
    odd[1] += largest * count as f64;
    refused(&whole("odd.npz", &odd, &shape, count), "1", &["not symmetric at 1, 0"]);
    odd[1] = f64::NAN;
    refused(&whole("nan.npz", &odd, &shape, count), "1", &["mom2.mom2 holds NaN at 0, 1"]);
    // A bit of a number that is no more what was written.
    let mut bytes = fs::read(&file).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(at("flipped.npz"), bytes).expect("writes");
    refused(&text("flipped.npz"), "1", &["mom2.mom2 cannot be read"]);
    refused(&npz(&at("other.npz"), &[("arr_0", npy("<f4", "(1,)", &[0; 4]))]), "1", &["has no mom2.count", "arr_0"]);
    refused(&text_file, "1", &["no archive of NumPy's"]);
}
