/** Rules for every view: accessible, never wider than the screen, and long lists stay light. */
import { sql } from "kysely";
import type { Page } from "playwright-core";
import { describe, expect, test } from "vitest";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { browserPath, findBarriers, patient, type TestBrowser, useBrowser } from "../../support/browser.ts";
import { useDatabase } from "../../support/database.ts";
import { connect, enrolDevice } from "../../support/device.ts";
import { startTestReplica, type TestReplica } from "../../support/server.ts";

const devicesMany = 5_000;
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

describe.skipIf(!browserPath)("every view", () => {
  const database = useDatabase();
  const browser = useBrowser();

  /** Sample data: a device, a completed, a failed and a running run, a paused watcher. */
  async function seed(replica: TestReplica): Promise<string> {
    const identity = await enrolDevice(
      replica.clients,
      "a device with a rather long name, as people give them",
    );
    const device = await connect(replica.url, identity, { maxConcurrency: 3 });
    const { watchers } = replica.clients;
    const make = async (name: string) => {
      const { watcher } = await watchers.createWatcher({
        spec: {
          name,
          prompt: "do it",
          deviceId: identity.deviceId,
          schedule: "0 9 * * 1-5",
          timeZone: "Asia/Tokyo",
        },
      });
      return watcher!.id;
    };
    const trigger = async (watcherId: string) => {
      await watchers.triggerWatcher({ watcherId });
      const assignment = await device.next("assignment");
      device.accept(assignment);
      return assignment;
    };
    const [first, second, third] = [
      await make("Morning digest"),
      await make("Nightly build"),
      await make("Paused"),
    ];
    await device.complete(await trigger(first), `${"a-long-word-".repeat(40)}\nand a short line`);
    await device.complete(await trigger(second), "", Outcome.FAILED, "3 of 214 tests failed");
    await watchers.pauseWatcher({ watcherId: third, reason: "until the lab is open again" });
    const { workId } = await trigger(second);
    return workId;
  }

  async function visit(page: Page, runId: string, look: (name: string) => Promise<void>): Promise<void> {
    const go = async (place: string, until: string) => {
      await page.evaluate(`location.hash = ${JSON.stringify(place)}`);
      await page.locator(until).first().waitFor();
    };
    await go("#/fleet", ".fleet [data-index]");
    await look("fleet");
    await page.getByRole("button", { name: "Add a device" }).click();
    await page.getByRole("button", { name: "Make a join code" }).click();
    await page.getByText("Waiting for a device to enrol…").waitFor();
    await look("the join code");
    await page.keyboard.press("Escape");
    await go("#/watchers", ".watchers [data-index]");
    await look("watchers");
    await page.getByRole("button", { name: "Edit Morning digest" }).click();
    await page.getByText("Limits and policies").click();
    await page.getByRole("dialog").locator(".preview li").nth(2).waitFor();
    await look("the form of a watcher");
    await page.keyboard.press("Escape");
    await go("#/runs", ".runs [data-index]");
    await look("runs");
    await go(`#/runs/${runId}`, ".explain p");
    await look("a run");
    await go("#/events", ".events [data-index]");
    await look("events");
    await go("#/runs?state=skipped", ".empty h2");
    await look("an empty list");
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByLabel("Token").waitFor();
    await look("sign-in");
  }

  for (const scheme of ["light", "dark"] as const) {
    test(`shuts nobody out, in ${scheme} colours`, async () => {
      const replica = await startTestReplica(database.url, patient);
      const runId = await seed(replica);
      const page = await browser.signIn(replica, "#/fleet", { scheme });
      const found: Record<string, string[]> = {};
      await visit(page, runId, async (name) => {
        const barriers = await findBarriers(page);
        if (barriers.length > 0) found[name] = barriers;
      });
      expect(found).toEqual({});
    });
  }

  test("fits into 360 pixels: nothing is scrolled sideways", async () => {
    const replica = await startTestReplica(database.url, patient);
    const runId = await seed(replica);
    const page = await browser.signIn(replica, "#/fleet", { width: 360, height: 720 });
    await visit(page, runId, async (name) => {
      expect(await page.evaluate("document.documentElement.scrollWidth"), name).toBeLessThanOrEqual(360);
      const dialog = "document.querySelector('dialog')";
      expect(await page.evaluate(`${dialog} ? ${dialog}.scrollWidth - ${dialog}.clientWidth : 0`), name).toBe(
        0,
      );
    });
  });

  test("5,000 devices: only the rows in sight exist, no step is slow, and the last one is a key away", {
    timeout: 90_000,
  }, async () => {
    const replica = await startTestReplica(database.url, patient);
    await seedDevices(replica);
    const page = await openWatched(browser, replica);
    await page.getByText(`all ${devicesMany.toLocaleString("en").replace(",", "")}`).waitFor();
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

    await page.locator("[data-index]").first().focus();
    await page.keyboard.press("End");
    await page.getByRole("link", { name: `device-${devicesMany}`, exact: true }).waitFor();
    expect(await page.evaluate("document.activeElement.dataset.index")).toBe(String(devicesMany - 1));
    await page.keyboard.press("/");
    await page.keyboard.type("device-4321");
    await page.getByRole("link", { name: "device-4321", exact: true }).waitFor();
    expect(await page.locator("[data-index]").count()).toBe(1);
    await page.getByRole("link", { name: "Runs", exact: true }).click();
    await page.getByLabel("Device").fill("device-4321");
    await page.waitForURL(/#\/runs\?device=[0-9a-f-]{36}$/);
    expect(Number(await page.evaluate("window.longest"))).toBeLessThan(longTaskMsMax);
  });

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
