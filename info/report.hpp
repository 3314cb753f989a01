/* SPDX-License-Identifier: BSD-3-Clause */
/* What an image is, as far as it can be told without a secret.
 *
 *      layer      {"type": "qcow2", …}, {"type": "luks", …}, {"type": "partitions", …}
 *                 each may have a "guest": the layer that the bytes in it hold
 *
 * Strings that an image holds are in the report as they are: whoever prints it makes them safe.
 */
#ifndef QLUKS_INFO_REPORT_HPP
#define QLUKS_INFO_REPORT_HPP

#include <nlohmann/json.hpp>
#include <string>

#include "base/block_device.hpp"

namespace qluks::info {

using Report = nlohmann::ordered_json;

/* What to type after "nbdkit --filter=qluks PLUGIN" to serve what was found. */
struct Found {
  Report layer;             /* null: nothing that is known */
  std::string parameters;   /* "qluks-layers=partition:2,luks qluks-passphrase=-" */
  bool header_only = false; /* a detached LUKS header: the image itself is not what is served */
};

/* Fails if the image cannot be read, is nothing that is known, or is damaged. */
Result<Found> describe_image(BlockDevice& image);

/* The report for people: printable ASCII and line ends, whatever the image holds. */
std::string as_text(const Report& report);

/* The report for programs: one JSON object, ASCII. */
std::string as_json(const Report& report);

} // namespace qluks::info

#endif
