/** Long lists of the page stay light: 5,000 devices, 100,000 runs that have ended. */
import { sql } from "kysely";
import type { Page } from "playwright-core";
import { describe, expect, test } from "vitest";
import { browserPath, patient, type TestBrowser, useBrowser } from "../../support/browser.ts";
import { useDatabase } from "../../support/database.ts";
import { connect, enrolDevice } from "../../support/device.ts";
import { startTestReplica, type TestReplica } from "../../support/server.ts";

const devicesMany = 5_000;
const runsMany = 100_000;
const steps = 60;
/** The rows in sight, and a few around them. */
const rowsMax = 60;
/**
 * Maximum average processor time of the page's thread for a screen full of new rows: script, style
 * and layout. Other programs on the same processors leave the time as it is.
 */
const stepMsMax = 40;
/**
 * Nothing keeps the page from answering for so long, also where other programs use the same
 * processors.
 */
const longTaskMsMax = 500;

describe.skipIf(!browserPath)("long lists", () => {
  const database = useDatabase();
  const browser = useBrowser();

  test("5,000 devices: only the rows in sight exist, no step is slow, and the last one is a key away", {
    timeout: 90_000,
  }, async () => {
    const replica = await startTestReplica(database.url, patient);
    await seedDevices(replica);
    const page = await openWatched(browser, replica);
    await page.getByText(`all ${devicesMany.toLocaleString("en").replace(",", "")}`).waitFor();
    await scrollThrough(page);

    await page.locator("[data-index]").first().focus();
    await page.keyboard.press("End");
    await page.getByRole("link", { name: `device-${devicesMany}`, exact: true }).waitFor();
    expect(await page.evaluate("document.activeElement.dataset.index")).toBe(String(devicesMany - 1));
    await page.keyboard.press("/");
    await page.keyboard.type("device-4321");
    await page.getByRole("link", { name: "device-4321", exact: true }).waitFor();
    expect(await page.locator("[data-index]").count()).toBe(1);
    await page.getByRole("link", { name: "Runs", exact: true }).click();
    await page.getByLabel("Device", { exact: true }).fill("device-4321");
    await page.waitForURL(/#\/runs\?device=[0-9a-f-]{36}$/);
    expect(Number(await page.evaluate("window.longest"))).toBeLessThan(longTaskMsMax);
  });

  test("100,000 runs that have ended: the newest are there, older ones come as one scrolls, and no step is slow", {
    timeout: 90_000,
  }, async () => {
    const replica = await startTestReplica(database.url, patient);
    const oldest = await seedRuns(replica);
    const page = await openWatched(browser, replica);
    await page.getByRole("link", { name: "Runs", exact: true }).click();
    await page.locator(".runs [data-index]").first().waitFor();
    await scrollThrough(page);
    // Further pages were read on the way.
    const read = () => page.evaluate("document.querySelector('.rows-space').getBoundingClientRect().height");
    await expect.poll(async () => Number(await read())).toBeGreaterThan(500 * 20);
    // A filter reaches runs that no scrolling would.
    await page.evaluate(`location.hash = "#/runs?watcher=${oldest.watcherId}"`);
    await page.locator(`[data-key="${oldest.runId}"]`).waitFor();
    expect(await page.locator(".runs [data-index]").count()).toBe(1);
    await page.evaluate('location.hash = "#/home"');
    await page.getByText(/completed 100,000/).waitFor();
    expect(Number(await page.evaluate("window.longest"))).toBeLessThan(longTaskMsMax);
  });

  /** Scrolls by screens of new rows, each of which is rendered, at less than the stated cost. */
  async function scrollThrough(page: Page): Promise<void> {
    await page.evaluate("window.longest = 0");
    const busyMs = await busyClock(page);
    const before = await busyMs();
    let rowsSeen = 0;
    for (let step = 0; step < steps; step++) {
      await page.mouse.wheel(0, 3_000);
      await page.evaluate(
        "new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))",
      );
      rowsSeen = Math.max(
        rowsSeen,
        Number(await page.evaluate("document.querySelectorAll('[data-index]').length")),
      );
      // Rows in the viewport are rendered, not an empty space.
      expect(
        await page.evaluate("document.elementFromPoint(600, 500)?.closest('[data-index]') !== null"),
      ).toBe(true);
    }
    expect(((await busyMs()) - before) / steps).toBeLessThan(stepMsMax);
    expect(rowsSeen).toBeGreaterThan(10);
    expect(rowsSeen).toBeLessThan(rowsMax);
  }

  /** Real runs of two watchers, and copies of the second's. Answers the first's. */
  async function seedRuns(replica: TestReplica): Promise<{ watcherId: string; runId: string }> {
    const identity = await enrolDevice(replica.clients, "mac-7");
    const device = await connect(replica.url, identity);
    const ended: { watcherId: string; runId: string }[] = [];
    for (const name of ["First", "Second"]) {
      const { watchers } = replica.clients;
      const { watcher } = await watchers.createWatcher({
        spec: { name, prompt: "do it", deviceId: identity.deviceId },
      });
      await watchers.triggerWatcher({ watcherId: watcher!.id });
      const assignment = await device.next("assignment");
      device.accept(assignment);
      await device.complete(assignment);
      ended.push({ watcherId: watcher!.id, runId: assignment.workId });
    }
    const columns = await sql<{ name: string }>`
      select attname as name from pg_attribute
      where attrelid = 'run_finished'::regclass and attnum > 0 and not attisdropped`.execute(database.db);
    const others = columns.rows.map(({ name }) => name).filter((name) => name !== "id");
    await sql`
      insert into run_finished (id, ${sql.raw(others.join(", "))})
      select uuid_v7(), ${sql.raw(others.map((name) => `r.${name}`).join(", "))}
      from run_finished r cross join generate_series(3, ${runsMany}) where r.id = ${ended[1]!.runId}`.execute(
      database.db,
    );
    await sql`analyze run_finished`.execute(database.db);
    return ended[0]!;
  }

  async function seedDevices(replica: TestReplica): Promise<void> {
    const { deviceId } = await enrolDevice(replica.clients, "device-1");
    // The rows that 4,999 more enrolments would leave, in the lists read by the page.
    await sql`
      insert into device (id, org_id, owner_id, install_id, label, os, app_version, agent_kinds, capabilities, max_concurrency)
      select gen_random_uuid(), org_id, owner_id, gen_random_uuid()::text, 'device-' || n, os, app_version,
        agent_kinds, capabilities, max_concurrency
      from device cross join generate_series(2, ${devicesMany}) n where id = ${deviceId}`.execute(
      database.db,
    );
  }

  /** Milliseconds of processor time of the page's thread so far. */
  async function busyClock(page: Page): Promise<() => Promise<number>> {
    const browserSide = await page.context().newCDPSession(page);
    await browserSide.send("Performance.enable", { timeDomain: "threadTicks" });
    return async () => {
      const { metrics } = await browserSide.send("Performance.getMetrics");
      const wanted = new Set(["ScriptDuration", "LayoutDuration", "RecalcStyleDuration"]);
      return metrics.reduce((sum, { name, value }) => sum + (wanted.has(name) ? value * 1_000 : 0), 0);
    };
  }

  /** Signed in, with a watch on how long the page keeps the browser busy at once. */
  async function openWatched(browser: TestBrowser, replica: TestReplica): Promise<Page> {
    const page = await browser.signIn(replica, "#/events");
    await page.evaluate(`new PerformanceObserver((list) => {
      for (const { duration } of list.getEntries()) window.longest = Math.max(window.longest ?? 0, duration);
    }).observe({ type: "longtask", buffered: false })`);
    await page.getByRole("link", { name: /^Fleet/ }).click();
    return page;
  }
});
