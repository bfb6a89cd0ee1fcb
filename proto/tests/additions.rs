//! Agents of neighbouring releases talk to each other, so the protocol only grows: whatever the committed descriptor
//! set holds must still be there with the same number and type.
//!
//! After an addition, `DROVER_ACCEPT_DESCRIPTORS=1 cargo test -p drover-proto` writes the set anew; commit it.

use std::collections::BTreeMap;

use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/descriptor/v1.bin");

/// Everything that a peer relies on, by its full name.
fn facts(set: &[u8]) -> BTreeMap<String, String> {
    let set = FileDescriptorSet::decode(set).expect("a descriptor set");
    let mut facts = BTreeMap::new();
    for file in &set.file {
        facts_of_file(file, &mut facts);
    }
    facts
}

fn facts_of_file(file: &FileDescriptorProto, facts: &mut BTreeMap<String, String>) {
    for message in &file.message_type {
        facts_of_message(file.package(), message, facts);
    }
    for enumeration in &file.enum_type {
        for value in &enumeration.value {
            let name = format!("{}.{}.{}", file.package(), enumeration.name(), value.name());
            facts.insert(name, format!("value {}", value.number()));
        }
    }
    for service in &file.service {
        for method in &service.method {
            let name = format!("{}.{}/{}", file.package(), service.name(), method.name());
            let (from, to) = (method.client_streaming(), method.server_streaming());
            let types = format!("{} stream={from} -> {} stream={to}", method.input_type(), method.output_type());
            facts.insert(name, types);
        }
    }
}

fn facts_of_message(scope: &str, message: &DescriptorProto, facts: &mut BTreeMap<String, String>) {
    let name = format!("{scope}.{}", message.name());
    for field in &message.field {
        let (number, kind, label) = (field.number(), field.r#type(), field.label());
        let within = field.oneof_index.map(|at| message.oneof_decl[at as usize].name()).unwrap_or("-");
        let fact = format!("field {number} {kind:?} {} {label:?} {within}", field.type_name());
        facts.insert(format!("{name}.{}", field.name()), fact);
    }
    facts.insert(name.clone(), "message".to_owned());
    for nested in &message.nested_type {
        facts_of_message(&name, nested, facts);
    }
}

fn broken(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<String> {
    let differs = |(name, was): (&String, &String)| match new.get(name) {
        Some(is) if is == was => None,
        is => Some(format!("{name}: was {was}, is {}", is.map_or("gone", String::as_str))),
    };
    old.iter().filter_map(differs).collect()
}

#[test]
fn only_additions() {
    let new = facts(drover_proto::DESCRIPTOR_SET);
    let old = facts(&std::fs::read(COMMITTED).expect("descriptor/v1.bin is committed"));
    let broken = broken(&old, &new);
    assert!(broken.is_empty(), "the protocol may only grow:\n{}", broken.join("\n"));
    if std::env::var_os("DROVER_ACCEPT_DESCRIPTORS").is_some() {
        std::fs::write(COMMITTED, drover_proto::DESCRIPTOR_SET).expect("descriptor/v1.bin can be written");
        return;
    }
    let added: Vec<_> = new.keys().filter(|name| !old.contains_key(*name)).collect();
    let first = &added[..added.len().min(5)];
    assert!(
        added.is_empty(),
        "{} additions are not in descriptor/v1.bin yet (see the head of this file): {first:?}…",
        added.len()
    );
}

#[test]
fn a_change_is_noticed() {
    let facts = facts(drover_proto::DESCRIPTOR_SET);
    let mut changed = facts.clone();
    changed.remove("drover.v1.Sync/Cancel").expect("an RPC");
    changed.insert("drover.v1.JobStatus.peer".to_owned(), "field 6".to_owned());
    let broken = broken(&facts, &changed);
    assert_eq!(broken.len(), 2, "{broken:?}");
}
