// A real Apache Mesos 1.11.0: one master and any number of agents in one process, with what tests need.
//
// A scheduler driver whose master is called "local" starts a cluster in its own process. This program starts such a
// driver, for a framework without a role, to which nothing is offered, and waits for signals. There are no headers of Mesos on
// the machine: the few symbols used are declared by the names that the linker knows.
//
// Configured by environment variables: LIBPROCESS_IP and LIBPROCESS_PORT for the address that all share,
// MESOS_NUM_SLAVES for the number of agents, MESOS_<FLAG> for any flag of a master or an agent. Agents are given flags of
// their own by files: the value file:///each-agent/NAME is read, for the n-th agent, from $CLUSTER_FLAGS/n/NAME.
//
// SIGUSR1 ends the last agent that runs, as if its machine had been lost: its executors go on.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <mutex>
#include <string>
#include <unistd.h>

// The layout of stout's Option<std::string>.
struct OptionalText {
  enum { SOME, NONE } state;
  std::string text;
};

extern "C" {
bool initialize(const OptionalText& delegate, const OptionalText& read, const OptionalText& write) asm(
    "_ZN7process10initializeERK6OptionINSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEEES9_S9_");
void upid(void* self, const std::string& text) asm(
    "_ZN7process4UPIDC1ERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE");
void terminate_process(const void* upid, bool inject) asm("_ZN7process9terminateERKNS_4UPIDEb");
void framework_info(void* self) asm("_ZN5mesos13FrameworkInfoC1Ev");
bool parse(void* message, const void* bytes, int length) asm("_ZN6google8protobuf11MessageLite14ParseFromArrayEPKvi");
void driver(void* self, void* scheduler, const void* framework, const std::string& master) asm(
    "_ZN5mesos20MesosSchedulerDriverC1EPNS_9SchedulerERKNS_13FrameworkInfoE"
    "RKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE");
int start(void* driver) asm("_ZN5mesos20MesosSchedulerDriver5startEv");
}

// What mesos::Scheduler declares, in its order: a framework that wants nothing.
struct Idle {
  virtual ~Idle() {}
  virtual void registered(void*, const void*, const void*) {}
  virtual void reregistered(void*, const void*) {}
  virtual void disconnected(void*) {}
  virtual void resourceOffers(void*, const void*) {}
  virtual void offerRescinded(void*, const void*) {}
  virtual void statusUpdate(void*, const void*) {}
  virtual void frameworkMessage(void*, const void*, const void*, const std::string&) {}
  virtual void slaveLost(void*, const void*) {}
  virtual void executorLost(void*, const void*, const void*, int) {}
  virtual void error(void*, const std::string& message) { std::fprintf(stderr, "error: %s\n", message.c_str()); }
};

// All agents load their flags from one environment, one agent after the other, and read the files that a flag names.
// This is found before the C library's own and sends the n-th reading of such a file to the n-th agent's.
static std::string for_this_agent(const char* path) {
  static std::mutex lock;
  static std::map<std::string, int> readings;
  static const char prefix[] = "/each-agent/";
  if (std::strncmp(path, prefix, sizeof prefix - 1) != 0) return path;
  const char* name = path + sizeof prefix - 1;
  const char* folder = std::getenv("CLUSTER_FLAGS");
  std::lock_guard<std::mutex> held(lock);
  return std::string(folder ? folder : ".") + "/" + std::to_string(++readings[name]) + "/" + name;
}

extern "C" FILE* fopen(const char* path, const char* mode) {
  static const auto next = reinterpret_cast<FILE* (*)(const char*, const char*)>(dlsym(RTLD_NEXT, "fopen"));
  return next(for_this_agent(path).c_str(), mode);
}

static void end_agent(int number) {
  alignas(16) char id[1024];
  const char *ip = std::getenv("LIBPROCESS_IP"), *port = std::getenv("LIBPROCESS_PORT");
  upid(id, "slave(" + std::to_string(number) + ")@" + (ip ? ip : "127.0.0.1") + ":" + (port ? port : "5050"));
  terminate_process(id, true);
}

int main() {
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGUSR1);
  // Before any other thread exists, so that all of them leave the signal to the loop below.
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);

  // The master answers without its name in the path too: /state as well as /master/state.
  const OptionalText master{OptionalText::SOME, "master"}, none{OptionalText::NONE, ""};
  initialize(master, none, none);
  alignas(16) static char info[4096], local[4096];
  framework_info(info);
  const char idle[] = "\x0a\x04root\x12\x04idle\x52\x02\x08\x06";  // user, name, the capability MULTI_ROLE; no roles
  if (!parse(info, idle, sizeof idle - 1)) return 1;
  static Idle scheduler;
  driver(local, &scheduler, info, "local");
  const int DRIVER_RUNNING = 2;
  if (start(local) != DRIVER_RUNNING) return 1;

  const char* agents = std::getenv("MESOS_NUM_SLAVES");
  for (int last = agents ? std::atoi(agents) : 1, signal = 0;;) {
    if (sigwait(&ends, &signal) == 0 && last > 0) end_agent(last--);
  }
}
