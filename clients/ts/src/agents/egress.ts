import type { ExecutorConfig } from "../runner/config.ts";
import { findInPath } from "../runner/confinement.ts";

/** Sample hosts, for checking an executor's enforcement before an agent with hosts arrives. */
const SOME_HOSTS = ["example.org"];

/**
 * Note for people about an executor's missing enforcement of hosts and its effect on runs.
 * Undefined: the executor enforces hosts.
 */
export function egressNote(executor: ExecutorConfig, env: NodeJS.ProcessEnv): string | undefined {
  const problem = egressProblem(executor, SOME_HOSTS, env);
  if (problem === undefined) return undefined;
  const isClosed = egressProblem(executor, [], env) === undefined;
  const which = isClosed
    ? "a run whose agent may connect to some hosts"
    : "a run whose agent has allowed hosts";
  const becomes = executor.egress === "advisory" ? "is run with a note" : "is turned down";
  return `${problem}; ${which} ${becomes} (egress = "${executor.egress}")`;
}

/**
 * Reason why an executor cannot restrict its agent to the allowed hosts; undefined: it can. Only an
 * agent's own sandbox enforces hosts; programs outside a sandbox are not observed.
 */
export function egressProblem(
  executor: ExecutorConfig,
  allowedHosts: readonly string[],
  env: NodeJS.ProcessEnv,
): string | undefined {
  switch (executor.type) {
    case "claude-code": {
      if (executor.permissions === "bypass") return 'claude is not confined with permissions = "bypass"';
      if (process.platform === "darwin") return undefined;
      if (process.platform !== "linux") return "claude has no sandbox on this platform";
      const missing = ["bwrap", "socat"].filter((name) => findInPath(name, env.PATH) === undefined);
      return missing.length === 0
        ? undefined
        : `claude's sandbox needs ${missing.join(" and ")}, ${missing.length === 1 ? "which is" : "which are"} not installed`;
    }
    case "codex":
      if (executor.codex.sandbox === "danger-full-access")
        return 'codex is not confined with sandbox = "danger-full-access"';
      if (process.platform === "win32") return "codex has no sandbox of this kind on this platform";
      return allowedHosts.length === 0
        ? undefined
        : "codex can be kept from the network altogether, not to some hosts of it";
    case "acp":
      return "the Agent Client Protocol has no word for it";
    case "command":
      return "a command is started as it is";
  }
}
