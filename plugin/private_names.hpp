/* SPDX-License-Identifier: BSD-3-Clause */
/* What the operator named in the parameters, files, sockets and servers, is for the log.  Newer versions of
 * nbdkit hand the text of an error to the client as well, who gets the parameter's name instead. */
#ifndef QLUKS_PLUGIN_PRIVATE_NAMES_HPP
#define QLUKS_PLUGIN_PRIVATE_NAMES_HPP

#include <string>
#include <utility>
#include <vector>

namespace qluks {

struct PrivateName {
  std::string text;
  std::string parameter; /* what is shown instead */
};

/* A file or an NBD URI as one or more names: the whole, its socket, its host. */
void add_private_source(std::vector<PrivateName>& names, const std::string& source, const char* parameter);

/* Before the first connection, once; until then nothing is private: whoever starts nbdkit may see what he typed. */
void keep_private(std::vector<PrivateName> names);

/* The text with every private name replaced. */
std::string without_private_names(std::string text);

} // namespace qluks

#endif
