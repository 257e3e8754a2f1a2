import type { ConformanceCase } from "./case.ts";
import { assignmentCases } from "./cases/assignments.ts";
import { cancelCases } from "./cases/cancels.ts";
import { connectionCases } from "./cases/connections.ts";
import { heartbeatCases } from "./cases/heartbeats.ts";
import { helloCases } from "./cases/hello.ts";
import { resultCases } from "./cases/results.ts";
import { verdictCases } from "./cases/verdicts.ts";

/** All cases, in the order of docs/protocol.md. */
export const cases: readonly ConformanceCase[] = [
  ...helloCases,
  ...heartbeatCases,
  ...assignmentCases,
  ...resultCases,
  ...verdictCases,
  ...cancelCases,
  ...connectionCases,
];
