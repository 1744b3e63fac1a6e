//! `inspect`: what a bundle says of itself, and whether anybody vouched for it.

use std::path::PathBuf;

use bank_format::{Digest256, Manifest, TrustRoot, manifest::Tree, trust::Role};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    commands::{Context, human_bytes, read_trust_root},
    error::{Error, Result},
    reader::BundleFile,
};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// The bundle
    file: PathBuf,
    /// Check the signatures by this trust root; without it, nothing that is shown was vouched for
    #[arg(long, value_name = "ROOT_JSON")]
    root: Option<PathBuf>,
    /// Show JSON
    #[arg(long)]
    json: bool,
}

/// What became of the signatures.
enum Vouched {
    NotChecked,
    By { path: PathBuf, root: TrustRoot },
}

impl Args {
    /// Shows the head.
    pub fn run(self, context: &Context) -> Result<()> {
        let bundle = BundleFile::open(&self.file)?;
        let claims = bundle.claims()?;
        let digest = Digest256::of(bundle.head().manifest_bytes());
        let total_bytes = bundle.head().header().total_bytes();
        let whole = bundle.check_length();
        let vouched = match self.root {
            None => Vouched::NotChecked,
            Some(path) => {
                let root = read_trust_root(&path)?;
                bundle.verify(&root)?;
                Vouched::By { path, root }
            }
        };
        let printer = &context.printer;
        if self.json {
            let value = as_json(&claims.manifest, &claims.key_ids, digest, total_bytes, &vouched);
            let text = serde_json::to_string_pretty(&value)
                .map_err(|_| Error::Bug { what: "the summary cannot be written as JSON" })?;
            printer.data(&text);
        } else {
            for line in as_lines(&claims.manifest, &claims.key_ids, digest, total_bytes, &vouched) {
                printer.data(&line);
            }
        }
        // The head can be read; still nobody should take half a file for a bundle.
        whole
    }
}

fn time_text(unix_seconds: u64) -> String {
    i64::try_from(unix_seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{unix_seconds} seconds after 1970"))
}

fn tree_text(tree: Tree) -> &'static str {
    match tree {
        Tree::None => "none",
        Tree::Appended => "appended",
    }
}

fn as_lines(
    manifest: &Manifest,
    key_ids: &[Digest256],
    digest: Digest256,
    total_bytes: u64,
    vouched: &Vouched,
) -> Vec<String> {
    let mut lines = vec![
        format!("release     {}", manifest.release()),
        format!("compatible  {}", manifest.compatible),
        format!("created     {} by {}", time_text(manifest.created_unix_seconds), manifest.build.tool),
    ];
    if let Some(floor) = &manifest.floor {
        lines.push(format!("floor       {floor}"));
    }
    lines.push(format!("manifest    {digest}"));
    lines.push(format!("size        {}", human_bytes(total_bytes)));
    lines.push(match vouched {
        Vouched::NotChecked => {
            format!("signatures  {}, NOT CHECKED (give --root ROOT_JSON)", key_ids.len())
        }
        Vouched::By { path, root } => {
            let (members, threshold) = root.role(Role::Targets);
            let known = key_ids.iter().filter(|id| members.contains(id)).count();
            format!(
                "signatures  good: {known} by release keys, {threshold} needed, trust root version {} ({})",
                root.version(),
                path.display()
            )
        }
    });
    lines.extend(key_ids.iter().map(|id| format!("  key       {id}")));
    for image in &manifest.images {
        lines.push(format!("image       {}", image.name));
        lines.push(format!("  size      {}", human_bytes(image.bytes)));
        lines.push(format!("  frames    {}", human_bytes(image.frames_bytes)));
        lines.push(format!("  verity    {}, tree {}", image.verity.root, tree_text(image.verity.tree)));
    }
    for document in &manifest.documents {
        lines.push(format!("document    {}, {} bytes", document.name, document.bytes));
    }
    for delta in &manifest.deltas {
        let (image, base, bytes) = (&delta.image, &delta.base_version, delta.bytes);
        lines.push(format!("delta       {image} from {base}, {}, {bytes} bytes", delta.codec));
    }
    lines
}

fn as_json(
    manifest: &Manifest,
    key_ids: &[Digest256],
    digest: Digest256,
    total_bytes: u64,
    vouched: &Vouched,
) -> Value {
    let signatures = match vouched {
        Vouched::NotChecked => json!({ "checked": false, "key_ids": key_ids }),
        Vouched::By { path, root } => json!({
            "checked": true,
            "key_ids": key_ids,
            "root": path,
            "root_version": root.version(),
            "threshold": root.role(Role::Targets).1,
        }),
    };
    let images: Vec<Value> = manifest
        .images
        .iter()
        .map(|image| {
            json!({
                "name": image.name,
                "bytes": image.bytes,
                "frames_bytes": image.frames_bytes,
                "verity_root": image.verity.root,
                "salt": image.verity.salt,
                "tree": tree_text(image.verity.tree),
            })
        })
        .collect();
    json!({
        "release": manifest.release(),
        "compatible": manifest.compatible,
        "created_unix_seconds": manifest.created_unix_seconds,
        "floor": manifest.floor,
        "build": manifest.build,
        "manifest_sha256": digest,
        "bytes": total_bytes,
        "signatures": signatures,
        "images": images,
        "documents": manifest.documents,
        "deltas": manifest.deltas,
    })
}
