"""Types of the kernel's global variables, which BTF does not have: those that drgn's helpers and people ask for.

One line a type. A name in several lines has another type in another version: the first that the kernel's BTF knows is
taken. `[]`: as many elements as there are bytes to the next
symbol, which may be some too many, of zeros. From the declarations in Linux 5.10 to 7.2.
"""

_TABLE = """
struct list_head: modules slab_caches super_blocks net_namespace_list pci_root_buses vmap_area_list cgroup_roots
struct list_head: workqueues clocksource_list tty_drivers input_dev_list input_handler_list bdi_list
struct task_struct: init_task
struct mm_struct: init_mm
struct files_struct: init_files
struct fs_struct: init_fs userspace_init_fs
struct cred: init_cred
struct user_struct: root_user
struct nsproxy: init_nsproxy
struct pid_namespace: init_pid_ns
struct uts_namespace: init_uts_ns
struct ipc_namespace: init_ipc_ns
struct user_namespace: init_user_ns
struct cgroup_namespace: init_cgroup_ns
struct net: init_net
struct css_set: init_css_set
struct cgroup_root: cgrp_dfl_root
struct cgroup_subsys *[]: cgroup_subsys
struct task_group: root_task_group
struct kmem_cache *: task_struct_cachep thread_stack_cache names_cachep dentry_cache filp_cachep mm_cachep
struct kset *: slab_kset class_kset bus_kset devices_kset module_kset
struct kobj_type: module_ktype device_ktype driver_ktype class_ktype bus_ktype
struct class: block_class
struct bus_type: pci_bus_type memory_subsys
struct kobj_map *: cdev_map
struct char_device_struct *[]: chrdevs
struct blk_major_name *[]: major_names
struct super_block *: blockdev_superblock
struct file_system_type *: file_systems
struct file_operations: ns_file_operations
struct kernfs_node *: sysfs_root_kn
struct hlist_head *: mount_hashtable inode_hashtable
struct hlist_bl_head *: dentry_hashtable
struct hlist_head[]: uidhash_table
struct proc_dir_entry: proc_root
struct idr: prog_idr map_idr link_idr btf_idr
struct mem_section **: mem_section
struct pglist_data *[]: node_data
struct memblock: memblock
struct resource: iomem_resource ioport_resource
struct vmap_node *: vmap_nodes
struct rb_root: vmap_area_root
struct percpu_counter: vm_committed_as
struct swap_info_struct *[]: swap_info
struct address_space *[]: swapper_spaces
unsigned int[]: nr_swapper_spaces
unsigned int: nr_swapfiles
struct hstate[]: hstates
int: hugetlb_max_hstate
struct maple_tree: sparse_irqs
struct radix_tree_root: irq_desc_tree
struct xarray: irq_desc_tree
struct time_namespace: init_time_ns
struct softirq_action[10]: softirq_vec
struct timer_list: poll_spurious_irq_timer
gate_desc[]: idt_table
struct neigh_table: arp_tbl
struct inet_hashinfo: tcp_hashinfo
struct udp_table: udp_table
struct printk_ringbuffer *: prb
struct printk_ringbuffer: printk_rb_static printk_rb_dynamic
struct rcu_state: rcu_state
struct cpuinfo_x86: boot_cpu_data
struct mod_tree_root: mod_tree
struct taint_flag[]: taint_flags
struct cpumask: __cpu_online_mask __cpu_possible_mask __cpu_present_mask __cpu_active_mask
unsigned long[]: __per_cpu_offset
unsigned long[3]: avenrun
nodemask_t[]: node_states
atomic_long_t[]: vm_zone_stat vm_node_stat vm_numa_stat vm_numa_event
atomic_long_t: _totalram_pages nr_swap_pages
unsigned long: page_offset_base vmalloc_base vmemmap_base max_pfn min_low_pfn max_low_pfn tainted_mask jiffies
unsigned long: __highest_present_section_nr phys_base sysctl_overcommit_kbytes total_forks loops_per_jiffy
unsigned long: vmap_zone_size
u64: jiffies_64
long: total_swap_pages
unsigned int: nr_cpu_ids nr_node_ids total_nr_irqs
int: nr_irqs nr_vmap_nodes sysctl_overcommit_ratio sysctl_overcommit_memory nr_threads max_threads pid_max panic_timeout
int: ipc_mni_shift
const char *[9]: task_state_array
char *: log_buf saved_command_line
char[]: linux_banner linux_proc_banner
void *[]: sys_call_table stack_slabs stack_pools
struct tk_data[]: timekeeper_data
struct tk_data: tk_core
"""


def table() -> dict[str, list[str]]:
    """{variable: its possible types in C}; a type ends in [] where the array's length is the symbol's."""
    found: dict[str, list[str]] = {}
    for line in _TABLE.strip().splitlines():
        kind, _, names = line.partition(": ")
        for name in names.split():
            found.setdefault(name, []).append(kind)
    return found
