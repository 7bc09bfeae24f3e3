package storage

// Checkpointed is the sequence of the durable checkpoint.
func (s *Store) Checkpointed() uint64 {
	s.pins.mu.Lock()
	defer s.pins.mu.Unlock()
	return s.pins.checkpointed
}

// Compact makes Badger forget whatever it may.
func (s *Store) Compact() error {
	if err := s.flush(); err != nil {
		return err
	}
	return s.db.Flatten(1)
}
