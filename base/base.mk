# SPDX-License-Identifier: BSD-3-Clause
noinst_LTLIBRARIES += libbase.la
libbase_la_SOURCES = \
	base/aligned.cpp \
	base/aligned.hpp \
	base/block_device.hpp \
	base/buffer_pool.cpp \
	base/buffer_pool.hpp \
	base/checked.hpp \
	base/clock.cpp \
	base/clock.hpp \
	base/extents.cpp \
	base/extents.hpp \
	base/file_descriptor.hpp \
	base/file_device.cpp \
	base/file_device.hpp \
	base/log.cpp \
	base/log.hpp \
	base/memory_budget.hpp \
	base/page_buffer.hpp \
	base/poison.hpp \
	base/range_lock.cpp \
	base/range_lock.hpp \
	base/result.hpp \
	base/secure_buffer.cpp \
	base/secure_buffer.hpp \
	base/shutdown.cpp \
	base/shutdown.hpp \
	base/secure_memory.cpp \
	base/secure_memory.hpp \
	base/system_message.cpp \
	base/system_message.hpp \
	base/units.hpp \
	base/wait.hpp \
	base/window.cpp \
	base/window.hpp \
	base/wire.hpp \
	base/zero_bytes.cpp \
	base/zero_bytes.hpp \
	$(END)
