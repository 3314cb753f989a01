/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/key_command.hpp"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <optional>
#include <vector>

#include "base/clock.hpp"
#include "base/file_descriptor.hpp"
#include "base/shutdown.hpp"
#include "base/system_message.hpp"
#include "formats/text.hpp"
#include "plugin/key_file.hpp"

extern char** environ;

namespace qluks {

namespace {

tl::unexpected<Error> command_error(const std::string& what, int err = EIO) {
  return fail(Errc::io, "qluks-key-command: " + what, err);
}

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

/* The header's UUID is bytes from outside, and goes into file names and perhaps through a second shell.  A real one
 * holds hexadecimal digits and dashes. */
Status check_uuid(const std::string& uuid) {
  const auto harmless = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '_' ||
           c == '-';
  };
  const bool ok_first = !uuid.empty() && uuid.front() != '-' && uuid.front() != '.';
  if (ok_first && std::all_of(uuid.begin(), uuid.end(), harmless)) return ok();
  return command_error("not run: the header's UUID " + in_quotes(uuid) +
                           " is not of letters, digits, dots, underscores and dashes alone, or starts with a dot or a "
                           "dash",
                       EINVAL);
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
Result<FileDescriptor> input_file(const std::string& text) {
  FileDescriptor file(memfd_create("qluks-tokens", MFD_CLOEXEC));
  if (!file || pwrite(file.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
    return command_error(system_message(errno), errno);
  }
  return file;
}

/* Does the terminal, if there is one, take its input for us?  Then a program must stay in our process group to be able
 * to ask for a passphrase there. */
bool owns_terminal() {
  const FileDescriptor terminal(open("/dev/tty", O_RDONLY | O_CLOEXEC | O_NOCTTY));
  return terminal.get() >= 0 && tcgetpgrp(terminal.get()) == getpgrp();
}

/* While it exists, signals that end a process wait.  Before nbdkit forks they would end it at once, and leave a program
 * behind. */
class HeldSignals {
 public:
  HeldSignals() noexcept {
    sigemptyset(&held_);
    for (const int signal : ending) {
      struct sigaction action {};
      if (sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_IGN) sigaddset(&held_, signal);
    }
    pthread_sigmask(SIG_BLOCK, &held_, &before_);
  }
  ~HeldSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  HeldSignals(const HeldSignals&) = delete;
  HeldSignals& operator=(const HeldSignals&) = delete;

  /* Is there one, or has nbdkit got one? */
  bool tell_to_end() const noexcept {
    sigset_t waiting;
    sigemptyset(&waiting);
    sigpending(&waiting);
    const bool any = std::any_of(std::begin(ending), std::end(ending), [&](int signal) {
      return sigismember(&waiting, signal) == 1 && sigismember(&held_, signal) == 1;
    });
    return any || shutting_down();
  }

 private:
  static constexpr int ending[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};

  sigset_t held_;
  sigset_t before_;
};

/* How long a program may run, and whether it has to go. */
class Patience {
 public:
  Patience(const HeldSignals& held, uint32_t seconds_max) noexcept
      : held_(held), seconds_max_(seconds_max), end_(monotonic_seconds() + seconds_max) {}

  /* Fails when the program has to end. */
  Status check() const {
    if (held_.tell_to_end()) return given_up();
    if (monotonic_seconds() < end_) return ok();
    return command_error("it was still running after " + std::to_string(seconds_max_) + " s: raise qluks-kdf-time",
                         ETIMEDOUT);
  }

 private:
  const HeldSignals& held_;
  uint32_t seconds_max_;
  double end_;
};

/* A running program.  If it still runs when this goes, it is ended. */
class Program {
 public:
  /* Run `command` by the shell, with these as its standard input and output. */
  static Result<Program> start(const std::string& command, std::vector<std::string> env, int input, int output);

  Program(Program&& other) noexcept : pid_(std::exchange(other.pid_, 0)), leads_group_(other.leads_group_) {}
  ~Program();

  /* Wait for its end; anything but success is an error. */
  Status wait(const Patience& patience);

 private:
  Program(pid_t pid, bool leads_group) noexcept : pid_(pid), leads_group_(leads_group) {}
  void send(int signal) const noexcept { kill(leads_group_ ? -pid_ : pid_, signal); }
  bool has_ended() const noexcept;
  std::optional<int> reap() noexcept;

  pid_t pid_; /* 0: has been waited for */
  bool leads_group_;
};

/* Some parents hand down that ends of children are ignored; then the kernel keeps no status, and a program that failed
 * could not be told from one that did not. */
void keep_exit_statuses() noexcept {
  struct sigaction action {};
  if (sigaction(SIGCHLD, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) std::signal(SIGCHLD, SIG_DFL);
}

Result<Program> Program::start(const std::string& command, std::vector<std::string> env, int input, int output) {
  keep_exit_statuses();
  std::vector<char*> envp;
  for (auto& e : env) envp.push_back(e.data());
  envp.push_back(nullptr);
  std::string shell = "sh";
  std::string option = "-c";
  std::string script = command;
  char* const argv[] = {shell.data(), option.data(), script.data(), nullptr};

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  int err = posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
  if (err == 0) err = posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  /* No signal blocked or ignored. */
  sigset_t none;
  sigset_t defaults;
  sigemptyset(&none);
  sigemptyset(&defaults);
  sigaddset(&defaults, SIGPIPE);
  sigaddset(&defaults, SIGCHLD);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  const bool own_group = !owns_terminal();
  const int group_flag = own_group ? POSIX_SPAWN_SETPGROUP : 0;
  posix_spawnattr_setflags(&attributes,
                           static_cast<short>(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | group_flag));
  pid_t pid = 0;
  if (err == 0) err = posix_spawn(&pid, "/bin/sh", &actions, &attributes, argv, envp.data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (err != 0) return command_error("/bin/sh: " + system_message(err), err);
  return Program(pid, own_group);
}

/* It may tidy up for half a second. */
Program::~Program() {
  if (pid_ == 0) return;
  send(SIGTERM);
  for (int i = 0; i < 50 && !has_ended(); ++i) poll(nullptr, 0, 10);
  send(SIGKILL);
  reap();
}

/* Its number stays its own until it is reaped. */
bool Program::has_ended() const noexcept {
  siginfo_t info{};
  return waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid != 0;
}

/* Its status; none if somebody else has taken it. */
std::optional<int> Program::reap() noexcept {
  int status = 0;
  pid_t reaped = -1;
  while ((reaped = waitpid(pid_, &status, 0)) < 0 && errno == EINTR) continue;
  const bool ours = reaped == pid_;
  pid_ = 0;
  return ours ? std::optional(status) : std::nullopt;
}

/* It has closed its output, so this is a matter of milliseconds, as a rule. */
Status Program::wait(const Patience& patience) {
  for (int pause_ms = 1; !has_ended(); pause_ms = std::min(2 * pause_ms, 64)) {
    if (Status s = patience.check(); !s) return s;
    poll(nullptr, 0, pause_ms);
  }
  const auto status = reap();
  if (!status) return command_error("its exit status is lost");
  if (WIFSIGNALED(*status)) return command_error("it was ended by signal " + std::to_string(WTERMSIG(*status)));
  if (WEXITSTATUS(*status) != 0) return command_error("it failed with status " + std::to_string(WEXITSTATUS(*status)));
  return ok();
}

/* Until there is something to read, or the end of the file. */
Status wait_for_output(int fd, const Patience& patience) {
  constexpr int pause_ms = 100;
  pollfd output{.fd = fd, .events = POLLIN, .revents = 0};
  while (poll(&output, 1, pause_ms) == 0) {
    if (Status s = patience.check(); !s) return s;
  }
  return ok();
}

} // namespace

Result<SecureBuffer> run_key_command(const std::string& command, const LuksHeader& header, uint32_t seconds_max) {
  if (Status s = check_uuid(header.uuid); !s) return propagate(s);
  auto input = input_file(header.tokens);
  if (!input) return propagate(input);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return command_error(system_message(errno), errno);
  FileDescriptor reader(ends[0]);
  FileDescriptor writer(ends[1]);
  const HeldSignals held; /* until the program is gone */
  const Patience patience(held, seconds_max);
  auto program = Program::start(command, environment(header), input->get(), writer.get());
  if (!program) return propagate(program);
  writer.close();
  auto secret = read_secret(reader.get(), key_file_bytes_default_max + 1, SecretEnd::file,
                            [&] { return wait_for_output(reader.get(), patience); });
  if (!secret && secret.error().code == Errc::shutting_down) return propagate(secret, "qluks-key-command");
  if (!secret && !secret.error().what.empty()) return propagate(secret); /* out of patience */
  const bool too_long = secret && secret->size() > key_file_bytes_default_max;
  /* Nobody reads on: a program that still writes gets SIGPIPE, and the wait below has an end. */
  reader.close();
  if (Status s = program->wait(patience); !s && !too_long) return propagate(s);
  if (!secret) return command_error(system_message(secret.error().sys), secret.error().sys);
  if (too_long) return command_error("it printed more than " + std::to_string(key_file_bytes_default_max) + " bytes");
  if (secret->empty()) return command_error("it printed nothing");
  return secret;
}

} // namespace qluks
