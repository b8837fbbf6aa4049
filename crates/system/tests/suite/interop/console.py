"""The console in Chromium, as an operator uses it: signs in through a provider and with a token, walks from an alarm to its cure by
keys alone, and looks at every page in light, dark and at a phone's width with axe-core. Says what it did, a line each.

argv: chromium, axe-core's script, the console's address, a token, a device that has fallen, a folder for pictures or -
"""

import json
import pathlib
import sys

from playwright.sync_api import expect, sync_playwright

chromium, axe, address, token, fallen, pictures = sys.argv[1:7]
RULES = pathlib.Path(axe).read_text()
wrong = []
VIEWS = [("light", 1280, 900), ("dark", 1280, 900), ("light", 390, 844)]


def say(*words):
    print(*words, flush=True)


def looked_at(page, name):
    """What axe-core has against a page, and whether it has to be pushed sideways."""
    # The page's own policy lets no foreign script in; the debugger is not asked by it.
    debugger = page.context.new_cdp_session(page)
    run = "axe.run(document).then(r => JSON.stringify(r.violations.map(v => [v.id, v.nodes.map(n => n.target.join(' '))])))"
    said = debugger.send("Runtime.evaluate", {"expression": f"{RULES};{run}", "awaitPromise": True, "returnByValue": True})
    violations = json.loads(said["result"]["value"])
    wrong.extend((name, *violation) for violation in violations)
    if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
        wrong.append((name, "is too wide"))
    if pictures != "-":
        page.screenshot(path=pathlib.Path(pictures) / f"{name}.png", full_page=True)


def opened(browser, scheme="light", width=1280, height=900):
    context = browser.new_context(ignore_https_errors=True, color_scheme=scheme, viewport={"width": width, "height": height})
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page, complaints


def by_token(page):
    page.goto(address)
    page.get_by_label("Access token").fill(token)
    page.keyboard.press("Enter")
    expect(page.get_by_role("navigation")).to_be_visible()


def by_provider(page, who):
    page.goto(address)
    page.get_by_role("link", name="With the provider").click()
    page.locator("[name=login]").fill(who)
    page.locator("[name=password]").fill("x")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Continue").click()


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

    for view in VIEWS:
        page, complaints = opened(browser, *view)
        page.goto(address)
        looked_at(page, f"sign-in-{view[0]}-{view[1]}")
        by_token(page)
        for path in ["/", "/devices", "/devices?q=state:suspect", f"/devices/{fallen}", f"/devices/{fallen}/evidence", "/policies", "/policies/test", "/certificates", "/certificates?state=withdrawn", "/ledger", "/people", "/devices/nobody"]:
            page.goto(address + path)
            looked_at(page, f"{path.strip('/').split('?')[0].replace('/', '-') or 'fleet'}-{view[0]}-{view[1]}")
        assert [one for one in complaints if "404" not in one] == [], complaints
        say("looked at", *view)
    assert not wrong, wrong

    # What changes is seen without asking, and not under the fingers of whoever reads it.
    page, complaints = opened(browser)
    by_token(page)
    page.goto(f"{address}/devices/press-2")
    expect(page.locator("#live")).to_contain_text("live")
    other, _ = opened(browser)
    by_token(other)
    other.goto(f"{address}/devices/press-2")
    other.get_by_label("Labels").fill("site=paris,line=4")
    other.get_by_role("button", name="Set labels").click()
    expect(page.locator(".facts").first).to_contain_text("line=4", timeout=5000)
    page.locator("#live").click()
    expect(page.locator("#live")).to_contain_text("paused")
    assert complaints == [], complaints
    say("heard of a label without asking")

    # From an alarm to a cure, by keys alone.
    page, _ = opened(browser)
    by_token(page)
    page.keyboard.press("g")
    page.keyboard.press("d")
    page.wait_for_url("**/devices")
    page.keyboard.press("/")
    page.keyboard.type("state:suspect")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=state%3Asuspect*")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/devices/*")
    say("sentence:", page.locator(".sentence").inner_text())
    approve = page.get_by_role("button", name="Approve")
    for _ in range(60):
        if approve.evaluate("button => button === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**done=approved*")
    say("cured:", page.get_by_role("status").filter(has_text="Approved").inner_text())

    # People, as what the provider says that they are.
    page, _ = opened(browser)
    by_provider(page, "ada@example.org")
    expect(page.get_by_role("navigation")).to_contain_text("People")
    say("signed in:", page.locator(".who span").inner_text())
    page, _ = opened(browser)
    by_provider(page, "paul@example.org")
    page.wait_for_url("**/devices")
    expect(page.get_by_role("navigation")).not_to_contain_text("Ledger")
    say("signed in:", page.locator(".who span").inner_text(), "sees", page.locator("table.rows tbody tr").count())
    page, _ = opened(browser)
    by_provider(page, "eve@example.org")
    say("kept out:", page.get_by_role("alert").inner_text())
    browser.close()
