/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/system_message.hpp"

#include <cstring>

namespace qluks {

std::string system_message(int err) {
  const char* text = strerrordesc_np(err);
  return text != nullptr ? text : "error " + std::to_string(err);
}

} // namespace qluks
