//! A configuration for a test: as the file says, but for what belongs to real servers.

use std::path::Path;

use ::config::{Map, Value, ValueKind};

use super::{Config, NameServers};

/// Takes out what only real servers need, before it is looked at: it may name variables and files that the machine of
/// a test does not have.
pub(super) fn strip(tree: &mut Map<String, Value>) {
    tree.remove("trace");
    tree.remove("health");
    strip_cluster(tree);
    let Some(ValueKind::Table(clusters)) = tree.get_mut("clusters").map(|clusters| &mut clusters.kind) else {
        return;
    };
    for cluster in clusters.values_mut() {
        if let ValueKind::Table(cluster) = &mut cluster.kind {
            strip_cluster(cluster);
        }
    }
}

fn strip_cluster(cluster: &mut Map<String, Value>) {
    cluster.remove("acl");
    cluster.remove("tls");
    cluster.insert("name_servers".to_owned(), Value::from("embedded"));
}

impl Config {
    /// Puts servers in the process in the place of real ones.
    pub(crate) fn use_embedded_servers(&mut self) {
        for cluster in self.clusters.values_mut().chain([&mut self.cluster]) {
            cluster.name_servers = NameServers::Embedded;
            cluster.acl = None;
            cluster.tls.enabled = false;
            cluster.client.vip_channel = false;
        }
        self.trace.enabled = false;
        self.health.listen = None;
    }

    /// Has broadcast groups keep their offsets in `folder`, those of each cluster apart, whatever the file says.
    pub(crate) fn keep_offsets_in(&mut self, folder: &Path) {
        for (number, cluster) in self.clusters.values_mut().chain([&mut self.cluster]).enumerate() {
            cluster.client.offset_dir = folder.join(number.to_string());
        }
    }
}
