package consume

import (
	"sync/atomic"

	"github.com/segmentio/kafka-go"
)

// balancer shares the partitions out in ranges. It remembers how many there
// were, because the library notices neither a topic that was missing then nor
// partitions that were added since.
type balancer struct {
	kafka.RangeGroupBalancer
	assigned atomic.Int64 // by this member for the generation; -1: another member did
}

// UserData is asked for before each joining of the group.
func (b *balancer) UserData() ([]byte, error) {
	b.assigned.Store(-1)
	return b.RangeGroupBalancer.UserData()
}

// AssignGroups is called for the member that leads the group.
func (b *balancer) AssignGroups(members []kafka.GroupMember, partitions []kafka.Partition) kafka.GroupMemberAssignments {
	b.assigned.Store(int64(len(partitions)))
	return b.RangeGroupBalancer.AssignGroups(members, partitions)
}
