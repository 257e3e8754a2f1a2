/** The doctor's report of the cost of a failover today. */
import { expect, test } from "vitest";
import { checkReplication } from "../../../src/cli/doctor/database.ts";

const standby = { name: "b", isSynchronous: false, lagBytes: 300 * 1024, lagMs: 1_500 };
const found = (
  names: string,
  standbys: (typeof standby)[],
  synchronousCommit = "on",
): Parameters<typeof checkReplication>[0] => ({
  replication: { synchronousStandbyNames: names, standbys },
  synchronousCommit,
  isReadOnly: false,
});

test.each([
  ["no standby", found("", []), "absent", /nothing to fail over to/],
  ["one that lags", found("", [standby]), "doubtful", /asynchronous \(b\), behind by 300 KiB.*loses that/],
  ["one that commits wait for", found("b", [{ ...standby, isSynchronous: true }]), "good", /loses nothing/],
  [
    "one that commits need not wait for",
    found("b", [{ ...standby, isSynchronous: true }], "local"),
    "doubtful",
    /synchronous_commit is local/,
  ],
  ["one that commits wait for in vain", found("b", []), "bad", /none is there/],
] as const)("%s", (_, inspection, verdict, text) => {
  const check = checkReplication(inspection);
  expect(check.verdict).toBe(verdict);
  expect(check.found).toMatch(text);
  if (verdict === "doubtful" || verdict === "bad") expect(check.advice).toBeTruthy();
});
