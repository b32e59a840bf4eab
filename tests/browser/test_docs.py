"""/docs: the API to be read and tried, with nothing from elsewhere (conftest's Complaints hear of every request)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.async_api import expect
from tests.browser.conftest import Open
from tests.lift_server.holders import holder


async def test_a_route_is_found_and_tried_with_the_key(open_page: Open, front_end: Any) -> None:
    mine = await holder(front_end)
    page = await open_page("/docs")
    await page.get_by_role("button", name="Authorize").click()
    dialog = page.locator(".modal-ux")
    await dialog.get_by_label("auth-bearer-value").fill(mine.secret)
    await dialog.get_by_role("button", name="Apply credentials").click()
    await dialog.get_by_role("button", name="Close").first.click()
    await page.get_by_role("button", name="GET /v1/keys/me The key").click()
    await page.get_by_role("button", name="Try it out").click()
    await page.get_by_role("button", name="Execute").click()
    told = page.locator(".live-responses-table .response-col_description code").first
    await expect(told).to_contain_text(mine.record.id)
    assert json.loads(await told.inner_text())["object"] == "key"


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_light_and_dark(open_page: Open, scheme: Any) -> None:
    page = await open_page("/docs", color_scheme=scheme)
    await expect(page.get_by_role("heading", name="LIFT Serve")).to_be_visible()
    ground = await page.evaluate("getComputedStyle(document.body).backgroundColor + document.documentElement.className")
    assert ("dark-mode" in ground) is (scheme == "dark")


async def test_the_page_leads_there(page: Any, front_end: Any) -> None:
    await page.get_by_role("link", name="API reference").click()
    await expect(page.get_by_role("heading", name="LIFT Serve")).to_be_visible()
    assert page.url == f"{front_end.url}/docs"
