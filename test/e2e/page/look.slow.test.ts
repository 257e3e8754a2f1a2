/**
 * Rules for every view: accessible, and never wider than the screen. With PINION_PICTURES=DIR the
 * test also leaves a picture of every view, at three widths and in both colour schemes.
 */
import { mkdirSync } from "node:fs";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { browserPath, findBarriers, useBrowser } from "../../support/browser.ts";
import { useDatabase } from "../../support/database.ts";
import { type PageSeed, pageSettings, seedPage } from "../../support/page-seed.ts";
import { openTestReplica, type TestReplica } from "../../support/server.ts";

/** The directory for pictures; without the variable, no pictures are made. */
const picturesDir = process.env.PINION_PICTURES;
/** Widths of the pictures: a laptop, a window beside another, a phone. */
const pictureWidths = [1280, 1180, 390];
const phone = 360;

describe.skipIf(!browserPath)("every view", () => {
  const database = useDatabase({ per: "file" });
  const browser = useBrowser();
  let replica: TestReplica;
  let seed: PageSeed;

  beforeAll(async () => {
    replica = await openTestReplica(database.url, pageSettings);
    seed = await seedPage(replica, database);
  }, 60_000);
  afterAll(async () => {
    await seed?.close();
    await replica?.stop();
  });

  /** Places of the page, each with the element by which the view is there. */
  function places(): [name: string, place: string, until: string][] {
    return [
      ["home", "#/home", ".needs li"],
      ["watchers", "#/watchers", ".watchers [data-index]"],
      ["watcher", "#/watchers/morning-digest", ".calendar .cell"],
      ["watcher-anywhere", "#/watchers/anywhere", "section[aria-label='Where it may run'] li"],
      ["runs", "#/runs", ".runs [data-index]"],
      ["runs-empty", "#/runs?state=cancelled", ".empty h2"],
      ["run-answered", `#/runs/${seed.runs.answered}`, ".answer h1, .answer h2"],
      ["run-failed", `#/runs/${seed.runs.failed}`, ".explain p"],
      ["run-asking", `#/runs/${seed.runs.asking}`, ".question, [aria-label='A question of the agent']"],
      ["run-waiting", `#/runs/${seed.runs.waiting}`, ".explain p"],
      ["fleet", "#/fleet", ".fleet [data-index]"],
      ["device", `#/fleet/${seed.deviceId}`, ".presence"],
      ["device-gone", `#/fleet/${seed.goneDeviceId}`, ".presence"],
      ["agents", "#/agents", "main .plain-table td"],
      ["agent", "#/agents/scribe", ".versions li"],
      ["conversations", "#/conversations", "main .plain-table td"],
      [
        "conversation",
        `#/conversations/${encodeURIComponent(seed.conversationId)}`,
        "[aria-label='What was said'] li",
      ],
      ["events", "#/events", ".events [data-index]"],
      ["org", "#/org", "section[aria-label='Tokens'] td"],
      ["destinations", "#/destinations", "main .plain-table td"],
      ["platforms", "#/platforms", "main .plain-table td"],
      ["hooks", "#/hooks", "main .plain-table td"],
      ["hook", "#/hooks/pushes", "section[aria-label='Deliveries'] td"],
      ["secrets", "#/secrets", "section[aria-label='Secrets on devices'] td"],
      ["orgs", "#/orgs", "main .plain-table td"],
      ["search", "#/search?q=parser", "section[aria-label='Results'] li, .hits li, main li"],
      ["you", "#/you", "main .plain-table td"],
      ["login", "#/login", "main input"],
    ];
  }

  /** Views that lie on others, each opened and closed by its own keys. */
  async function openDialogs(page: Page, look: (name: string) => Promise<void>): Promise<void> {
    const dialog = page.getByRole("dialog");
    const go = async (place: string, until: string) => {
      await page.evaluate(`location.hash = ${JSON.stringify(place)}`);
      await page.locator(until).first().waitFor();
    };
    const close = async () => {
      await page.keyboard.press("Escape");
      await dialog.waitFor({ state: "detached" });
    };
    await go("#/fleet", ".fleet [data-index]");
    await page.getByRole("button", { name: "Add a device" }).click();
    await page.getByRole("button", { name: "Make a join code" }).click();
    await page.getByText("Waiting for a device to enrol…").waitFor();
    await look("dialog-join");
    await close();
    await go("#/watchers", ".watchers [data-index]");
    await page.getByRole("button", { name: "Edit Morning digest" }).click();
    await page.getByText("Limits and policies").click();
    await dialog.locator(".preview li").nth(2).waitFor();
    await look("dialog-watcher");
    await close();
    await go("#/runs?state=failed", ".runs [data-index]");
    await page.getByRole("button", { name: "Retry all…" }).click();
    await dialog.locator(".bulk-count").waitFor();
    await look("dialog-bulk");
    await close();
    await go("#/org", "section[aria-label='Tokens'] td");
    await page.getByRole("button", { name: "Create a token" }).click();
    await dialog.getByLabel("Label").waitFor();
    await look("dialog-token");
    await close();
    await go(`#/fleet/${seed.deviceId}`, ".presence");
    const log = page.getByRole("region", { name: "Its daemon's log" });
    const read = log.getByRole("button", { name: "Read" }).click();
    const { requestId } = await seed.device.next("logRequest");
    const text = `12:00:01 connected\n${"12:00:02 a run started ".repeat(12)}\n12:00:03 it ended`;
    seed.device.send({ case: "logExcerpt", value: { requestId, text, isTruncated: true } });
    await read;
    await log.locator("pre").waitFor();
    await look("device-log");
  }

  async function visit(page: Page, look: (name: string) => Promise<void>): Promise<void> {
    for (const [name, place, until] of places()) {
      await page.evaluate(`location.hash = ${JSON.stringify(place)}`);
      await page
        .locator(until)
        .first()
        .waitFor()
        .catch((error: Error) => Promise.reject(new Error(`${name}: ${error.message}`)));
      await look(name);
    }
    await openDialogs(page, look);
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByLabel("Token").waitFor();
    await look("sign-in");
  }

  async function takePictures(page: Page, name: string, scheme: string): Promise<void> {
    if (!picturesDir) return;
    mkdirSync(picturesDir, { recursive: true });
    const size = page.viewportSize()!;
    for (const width of pictureWidths) {
      await page.setViewportSize({ width, height: size.height });
      await page.screenshot({ path: `${picturesDir}/${name}-${width}-${scheme}.png`, fullPage: true });
    }
    await page.setViewportSize(size);
  }

  /**
   * What does not fit on a phone of 360 pixels: how far the page, or the dialog on it, is wider,
   * and titles that are broken within a word.
   */
  async function misfits(page: Page): Promise<(number | string)[]> {
    const size = page.viewportSize()!;
    await page.setViewportSize({ width: phone, height: 720 });
    // The page has drawn itself anew after two frames.
    await page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))");
    const width = Number(await page.evaluate("document.documentElement.scrollWidth"));
    const dialog = "document.querySelector('dialog')";
    const more = Number(await page.evaluate(`${dialog} ? ${dialog}.scrollWidth - ${dialog}.clientWidth : 0`));
    const broken = (await page.evaluate(`[...document.querySelectorAll("h2")].flatMap(({ firstChild }) => {
      const range = document.createRange();
      if (firstChild?.nodeType !== Node.TEXT_NODE || !/^\\S+\\s*$/.test(firstChild.data)) return [];
      range.selectNodeContents(firstChild);
      return new Set([...range.getClientRects()].map(({ top }) => top)).size > 1 ? [firstChild.data] : [];
    })`)) as string[];
    await page.setViewportSize(size);
    return [...(width > phone || more > 0 ? [width + more] : []), ...broken];
  }

  test("hides no column at 1180 pixels, and makes no row of a phone higher than 120", async () => {
    const page = await browser.signIn(replica, "#/watchers", { width: 1180 });
    const last = page.getByRole("columnheader", { name: "Last result" });
    await last.waitFor();
    const { x = 0, width = 0 } = (await last.boundingBox()) ?? {};
    expect(x).toBeGreaterThan(0);
    expect(x + width).toBeLessThanOrEqual(1180);
    await page.setViewportSize({ width: 390, height: 800 });
    for (const view of ["watchers", "runs", "fleet", "events"]) {
      await page.evaluate(`location.hash = "#/${view}"`);
      const row = page.locator(`.${view} [data-index]`).first();
      await row.waitFor();
      expect((await row.boundingBox())!.height, view).toBeLessThanOrEqual(120);
    }
  });

  test("a run's steps begin when it is due, and a step of unknown length has none", async () => {
    const page = await browser.signIn(replica, `#/runs/${seed.runs.answered}`);
    const steps = page.getByRole("region", { name: "Timeline" }).getByRole("listitem");
    await steps.first().waitFor();
    const texts = await steps.allTextContents();
    expect(texts.map((text) => /^[a-z]+/.exec(text)?.[0])).toEqual(["due", "pushed", "accepted", "stored"]);
    expect(texts.join(" ")).not.toContain("+0 ms");
  });

  test("shuts nobody out, in light and dark colours, and fits into 360 pixels: nothing is scrolled sideways", {
    timeout: 120_000,
  }, async () => {
    const page = await browser.signIn(replica, "#/you");
    const barriers: Record<string, string[]> = {};
    const unfit: Record<string, (number | string)[]> = {};
    let views = 0;
    await visit(page, async (name) => {
      views += 1;
      const found = await findBarriers(page);
      await takePictures(page, name, "light");
      await page.emulateMedia({ colorScheme: "dark" });
      found.push(...(await findBarriers(page, { of: "colours" })).map((finding) => `dark: ${finding}`));
      await takePictures(page, name, "dark");
      await page.emulateMedia({ colorScheme: "light" });
      if (found.length > 0) barriers[name] = found;
      const found360 = await misfits(page);
      if (found360.length > 0) unfit[name] = found360;
    });
    expect({ barriers, unfit }).toEqual({ barriers: {}, unfit: {} });
    expect(views).toBeGreaterThan(30);
  });
});
