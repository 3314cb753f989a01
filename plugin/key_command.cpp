/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/key_command.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>
#include <vector>

#include "base/system_message.hpp"
#include "plugin/key_file.hpp"

extern char** environ;

namespace qluks {

namespace {

tl::unexpected<Error> command_error(const std::string& what, int err = EIO) {
  return fail(Errc::io, "qluks-key-command: " + what, err);
}

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) noexcept : fd_(fd) {}
  ~Descriptor() { close(); }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    close();
    fd_ = std::exchange(other.fd_, -1);
    return *this;
  }
  int get() const noexcept { return fd_; }
  void close() noexcept {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_;
};

const char* layer_name(HeaderPlace place) {
  switch (place) {
    case HeaderPlace::in_qcow2:
      return "qcow2";
    case HeaderPlace::detached:
      return "detached";
    case HeaderPlace::attached:
      break;
  }
  return "luks";
}

/* Our variables in front of the server's: the first of a name counts. */
std::vector<std::string> environment(const LuksHeader& header) {
  std::vector<std::string> env = {"QLUKS_UUID=" + header.uuid, "QLUKS_VERSION=" + std::to_string(header.version),
                                  std::string("QLUKS_LAYER=") + layer_name(header.place)};
  for (char** e = environ; *e != nullptr; ++e) {
    if (std::strncmp(*e, "QLUKS_", 6) != 0) env.emplace_back(*e);
  }
  return env;
}

/* A file in memory as standard input: no pipe that could fill up or break. */
Result<Descriptor> input_file(const std::string& text) {
  Descriptor file(memfd_create("qluks-tokens", MFD_CLOEXEC));
  if (file.get() < 0 || pwrite(file.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
    return command_error(system_message(errno), errno);
  }
  return file;
}

/* Start the program with these as its standard input and output, and with no signal blocked or ignored. */
Result<pid_t> spawn(const std::string& command, std::vector<std::string> env, int input, int output) {
  std::vector<char*> envp;
  for (auto& e : env) envp.push_back(e.data());
  envp.push_back(nullptr);
  std::string shell = "sh";
  std::string option = "-c";
  std::string script = command;
  char* const argv[] = {shell.data(), option.data(), script.data(), nullptr};

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigset_t pipe;
  sigemptyset(&none);
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &pipe);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  pid_t pid = 0;
  const int err = posix_spawn(&pid, "/bin/sh", &actions, &attributes, argv, envp.data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (err != 0) return command_error("/bin/sh: " + system_message(err), err);
  return pid;
}

Status wait_for(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return command_error(system_message(errno), errno);
  }
  if (WIFSIGNALED(status)) return command_error("it was ended by signal " + std::to_string(WTERMSIG(status)));
  if (WEXITSTATUS(status) != 0) return command_error("it failed with status " + std::to_string(WEXITSTATUS(status)));
  return ok();
}

} // namespace

Result<SecureBuffer> run_key_command(const std::string& command, const LuksHeader& header) {
  auto input = input_file(header.tokens);
  if (!input) return propagate(input);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return command_error(system_message(errno), errno);
  Descriptor reader(ends[0]);
  Descriptor writer(ends[1]);
  auto pid = spawn(command, environment(header), input->get(), writer.get());
  if (!pid) return propagate(pid);
  writer.close();
  auto secret = read_secret(reader.get(), key_file_bytes_default_max + 1);
  const bool too_long = secret && secret->size() > key_file_bytes_default_max;
  /* Nobody reads on: a program that still writes gets SIGPIPE, and the wait below has an end. */
  reader.close();
  if (Status s = wait_for(*pid); !s && !too_long) return propagate(s);
  if (!secret) return command_error(system_message(secret.error().sys), secret.error().sys);
  if (too_long) return command_error("it printed more than " + std::to_string(key_file_bytes_default_max) + " bytes");
  if (secret->empty()) return command_error("it printed nothing");
  return secret;
}

} // namespace qluks
