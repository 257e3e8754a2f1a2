/**
 * Work that is repeated with each of its statements failing, with a code of each class of SQLSTATE.
 */
import { sql } from "kysely";
import { expect, onTestFinished } from "vitest";
import { codeOf, Refusal } from "../../../src/errors.ts";
import type { Endings, Report } from "../../../src/scheduler/endings/endings.ts";
import { type Db, openDatabase } from "../../../src/store/pg/database.ts";
import { type StatementProxy, startStatementProxy } from "../../support/statement-proxy.ts";

/** A code of each class. */
export const codes = [
  ...["08006", "0A000", "22001", "23505", "25006", "28000", "3D000", "3F000", "40001", "42P01"],
  ...["53100", "54000", "55P03", "57014", "58030", "P0001", "XX000"],
];
/** For work that has no data of a device. */
export const fewCodes = ["08006", "23514", "40001", "53100", "57014", "XX000"];

/**
 * A connection to a database through a proxy that fails statements; both are closed after the test.
 */
export async function faulty(url: string): Promise<{ db: Db; proxy: StatementProxy }> {
  const proxy = await startStatementProxy(url);
  const opened = openDatabase({ url: proxy.url, poolMax: 2, applicationName: "pinion faulty test" });
  onTestFinished(() => opened.close());
  // The first statements of a connection are no part of the work.
  await sql`select 1`.execute(opened.db);
  return { db: opened.db, proxy };
}

export type Work = {
  /** Does the work; the same work may be repeated. */
  run(): Promise<unknown>;
  /** After each failure: nothing has been given up. */
  unharmed(): Promise<void>;
};

/** The statements that take a report's data. */
const carriesData = /insert into (run_finished|run_report|late_result|turn_finished)/;

/**
 * Does the work with each of its statements failing, in each way, for as long as asked; and in the
 * end without a failure. Returns the statements.
 */
export async function failEverywhere(
  proxy: StatementProxy,
  make: () => Promise<Work>,
  tried = codes,
): Promise<string[]> {
  const first = await make();
  proxy.take();
  await first.run();
  const statements = proxy.take();
  for (const [at, text] of statements.entries()) {
    if (text.startsWith("rollback")) continue;
    const work = await make();
    for (const code of tried) {
      proxy.fail(at, code, { isLasting: true });
      const error = await work.run().then(
        () => undefined,
        (failure: unknown) => failure,
      );
      const refused = proxy.mend();
      const where = `${code} at ${refused.slice(0, 60)}`;
      // Data that the database refuses in the statement that takes the data is invalid.
      const mayBeInvalid = /^2[23]/.test(code) && carriesData.test(refused);
      if (error instanceof Refusal) expect(mayBeInvalid, `${where}: refused for good`).toBe(true);
      else if (error !== undefined) expect(codeOf(error), where).toBe(code);
      await work.unharmed();
    }
    await work.run();
  }
  return statements;
}

export const nothing = async () => {};

/** The verdicts of all reports; throws the first failure, once all are done. */
export async function reportAll(endings: Endings, reports: readonly Report[]): Promise<string[]> {
  const results = await Promise.allSettled(reports.map((report) => endings.report(report)));
  const failed = results.find((result) => result.status === "rejected");
  if (failed) throw failed.reason;
  return results.flatMap((result) => (result.status === "fulfilled" ? [result.value.verdict] : []));
}
