/**
 * The order of the test files: the longest first, so that no worker begins a long file while the
 * others have nothing left. Vitest knows the times of this machine's last run; a fresh checkout has
 * this list.
 */
import type { TestSpecification } from "vitest/node";
import { BaseSequencer } from "vitest/node";

/** Files of more than some 5 s, by falling time. `.ci/run` prints the times. */
const longest = [
  "e2e/install/upgrade",
  "integration/agents/crashes",
  "chaos/short",
  "integration/server/org-move",
  "integration/server/bus-replicas",
  "integration/agents/floods",
  "integration/agents/claude",
  "integration/agents/presets",
  "e2e/agents",
  "chaos/rolling-deploy",
  "integration/cli/apply",
  "integration/server/metrics",
  "integration/invariants/sqlstates",
  "integration/server/second-person",
  "integration/server/fleet-worker",
  "e2e/install/server-gives-daemon",
  "integration/server/recorded-ahead",
  "e2e/cli/apply",
  "e2e/cli/conformance",
  "e2e/cli/up",
  "e2e/page/reconnect",
  "e2e/crash",
  "integration/server/selectors",
  "e2e/install/package",
  "integration/server/bus",
  "e2e/docs",
  "e2e/page/answer",
  "e2e/page/long-lists",
  "e2e/page/org",
  "e2e/page/look",
  "integration/server/platforms",
  "integration/server/device-stream",
  "e2e/client/package",
  "integration/agents/codex",
  "integration/server/limits",
  "e2e/turns",
  "integration/store/embedded",
  "e2e/examples/daemons",
  "integration/client/runner",
  "integration/server/identities",
  "integration/server/bad-input",
  "integration/server/orgs",
  "e2e/page/run",
  "e2e/example-chat",
  "e2e/page/sign-in",
  "integration/server/platform-kinds",
  "integration/server/not-listed",
  "integration/server/traces",
  "integration/server/cells",
  "integration/scheduler/clock-jump",
  "e2e/page/home",
  "e2e/worker",
  "integration/server/platform-chat",
  "e2e/page/documentation",
  "integration/scheduler/reaper",
  "e2e/cli/top",
  "e2e/page/fleet",
  "integration/server/slow-reader.connect",
  "integration/client/confinement",
  "integration/server/every-rpc",
  "integration/store/listener",
  "integration/cli/terminal",
  "property/interleavings",
  "e2e/agents-mcp",
  "integration/agents/egress",
  "e2e/image",
  "integration/server/events",
  "integration/agents/acp",
  "integration/cli/contexts",
  "e2e/backup",
  "integration/server/database-outage",
  "integration/server/probes",
  "integration/server/sweep",
  "e2e/page/streams",
  "property/settlement",
  "integration/server/ownership",
  "integration/server/deliveries",
  "integration/agents/workspaces",
  "integration/client/reload",
  "integration/server/slow-reader",
  "integration/cli/doctor",
  "e2e/delivery-killed",
  "integration/server/buf-curl",
  "integration/server/failover-acknowledgement",
  "integration/invariants/one-reply",
  "e2e/",
  "property/",
  "integration/invariants/",
  "integration/server/",
  "integration/",
].map((name) => `/test/${name}`);

function rankOf({ moduleId }: TestSpecification): number {
  const rank = longest.findIndex((name) => moduleId.includes(name.endsWith("/") ? name : `${name}.test.`));
  return rank < 0 ? longest.length : rank;
}

export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const known = files.some((file) => this.#timeOf(file) !== undefined);
    const byTime = (a: TestSpecification, b: TestSpecification) =>
      known ? (this.#timeOf(b) ?? 0) - (this.#timeOf(a) ?? 0) : 0;
    return files.toSorted((a, b) => inOrder(a) - inOrder(b) || byTime(a, b) || rankOf(a) - rankOf(b));
  }

  #timeOf(file: TestSpecification): number | undefined {
    return this.ctx.cache.getTestSpecificationResult(file)?.duration;
  }
}

/** The short unit tests come last, together: a worker changes its project by starting again. */
function inOrder({ project }: TestSpecification): number {
  return project.name === "unit" ? 1 : 0;
}
