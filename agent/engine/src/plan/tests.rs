//! Planned trees are applied to a model in memory: what the steps say must lead from one tree to the other.
