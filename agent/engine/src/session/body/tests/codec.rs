use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    codec::Writer,
    content::Part,
    digest::Digest,
    session::body::{Basis, Blocks, BodyMessage, Changed, Known, Run, Settled, SmallBatch, Want, WantRange},
    tree::Meta,
};

fn body() -> impl Strategy<Value = Body> {
    (0u64..1 << 40, any::<[u8; 32]>(), any::<u64>()).prop_map(|(size, digest, holes)| Body {
        size,
        digest: Digest::from_bytes(digest),
        holes,
    })
}

fn want(size_max: u64) -> impl Strategy<Value = Want> {
    (any::<u32>(), "[a-z]{1,9}(/[a-z]{1,9}){0,3}", body()).prop_map(move |(id, path, mut body)| {
        body.size %= size_max;
        Want { id, path: rel(&path), body }
    })
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let part = prop_oneof![
        vec(any::<u8>(), 1..300).prop_map(|data| Part::Data(data.into())),
        (1u64..5000).prop_map(Part::Zeros),
        (1u64..5000).prop_map(Part::Hole),
        (any::<u64>(), 1u64..5000).prop_map(|(from, len)| Part::Copy { from, len }),
    ];
    vec(part, 0..20)
}

fn basis() -> impl Strategy<Value = Option<Basis>> {
    let blocks = prop_oneof![
        vec(any::<[u8; 16]>(), 0..16).prop_map(Blocks::Leaves),
        (any::<u64>(), vec(any::<[u8; 8]>(), 0..256)).prop_map(|(leaves, digests)| Blocks::Pages { leaves, digests }),
        vec(any::<u8>(), 0..900).prop_map(|signature| Blocks::Signature(signature.into())),
        (any::<[u8; 32]>(), any::<u64>())
            .prop_map(|(digest, size)| Blocks::Known(Known { digest: Digest::from_bytes(digest), size })),
    ];
    proptest::option::of((0u64..1 << 50, blocks).prop_map(|(offset, blocks)| Basis { offset, blocks }))
}

fn batch() -> impl Strategy<Value = SmallBatch> {
    vec((any::<u32>(), proptest::option::of(parts())), 0..9).prop_map(|bodies| {
        let mut batch = SmallBatch::builder(0);
        for (id, parts) in bodies {
            match parts {
                Some(parts) => batch.parts(id, &parts),
                None => batch.gone(id),
            }
        }
        batch.finish()
    })
}

fn message() -> impl Strategy<Value = BodyMessage> {
    let settled = any::<bool>().prop_map(|moving| if moving { Settled::Moving } else { Settled::Still });
    prop_oneof![
        vec(want(20_000), 0..20).prop_map(BodyMessage::WantSmall),
        (want(1 << 40), 0usize..MIB, basis()).prop_map(|(mut want, length, basis)| {
            want.body.size += 1 << 21;
            BodyMessage::WantRange(WantRange { want, offset: 1 << 20, length, basis })
        }),
        want(u64::MAX).prop_map(BodyMessage::Recheck),
        batch().prop_map(BodyMessage::Small),
        (any::<u32>(), any::<u64>(), parts()).prop_map(|(id, offset, parts)| BodyMessage::Range { id, offset, parts }),
        (any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(id, offset, leaves)| BodyMessage::Differs {
            id,
            offset,
            leaves
        }),
        (any::<u32>(), body(), settled, proptest::option::of(parts())).prop_map(|(id, body, settled, content)| {
            BodyMessage::Changed(Box::new(Changed { id, meta: Meta::default(), body, settled, content }))
        }),
        any::<u32>().prop_map(|id| BodyMessage::Gone { id }),
        (any::<u32>(), any::<u64>()).prop_map(|(id, offset)| BodyMessage::Unknown { id, offset }),
        (any::<u32>(), any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(id, offset, length, is_hole)| {
            BodyMessage::Run { id, offset, length, what: if is_hole { Run::Hole } else { Run::Same } }
        }),
        (any::<u32>(), any::<u64>()).prop_map(|(id, offset)| BodyMessage::GoneRange { id, offset }),
        (any::<u32>(), ".{0,40}").prop_map(|(id, message)| BodyMessage::Failed { id, message }),
    ]
}

proptest! {
    #[test]
    fn messages_come_back(message in message()) {
        let mut w = Writer::new();
        message.encode(&mut w);
        prop_assert_eq!(BodyMessage::decode(w.into_bytes().into()).unwrap(), message);
    }

    #[test]
    fn no_damage_panics(message in message(), at in any::<usize>(), bit in 0u8..8, cut in any::<usize>()) {
        let mut w = Writer::new();
        message.encode(&mut w);
        let mut bytes = w.into_bytes();
        let len = bytes.len();
        bytes[at % len] ^= 1 << bit;
        let _ = BodyMessage::decode(bytes.clone().into());
        bytes.truncate(cut % len);
        let _ = BodyMessage::decode(bytes.into());
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..600)) {
        let _ = BodyMessage::decode(bytes.into());
    }
}
