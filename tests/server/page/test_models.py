"""The menu of models."""

from __future__ import annotations

from playwright.sync_api import Page, Route, expect
from server.page.driving import open_tab, pick_model
from server.running import Server


def test_server_lists_the_kinds_of_input_of_a_model_that_is_not_loaded(site: Server, key: dict[str, str]) -> None:
    data = site.get("/v1/models", headers=key).json()["data"]
    found = {model["id"]: model["architecture"] for model in data}
    assert found["smol"] == {"input_modalities": ["text"], "output_modalities": ["text"]}
    assert found["seeing"]["input_modalities"] == ["text", "image"]
    assert found["speech"]["input_modalities"] == ["audio"] and found["shapes"]["output_modalities"] == ["image"]


def test_one_menu_has_the_models_of_all_tasks(page: Page) -> None:
    groups = page.locator("#model optgroup")
    assert [group.get_attribute("label") for group in groups.all()] == ["Chat", "Transcribe", "Images"]
    pick_model(page, "shapes")
    expect(page.get_by_role("tab", name="Images")).to_have_attribute("aria-selected", "true")
    open_tab(page, "Chat")
    expect(page.locator("#model")).to_have_value("smol")
    pick_model(page, "tiny")
    page.reload()  # the browser keeps the choice
    expect(page.locator("#model")).to_have_value("tiny")
    open_tab(page, "Transcribe")
    expect(page.locator("#model")).to_have_value("speech")


def test_loads_and_unloads_a_model(page: Page) -> None:
    pick_model(page, "tiny")
    state = page.locator("#model-state")
    if page.get_by_role("button", name="Unload").is_visible():
        page.get_by_role("button", name="Unload").click()
    expect(state).to_have_text("not loaded")
    page.get_by_role("button", name="Load", exact=True).click()
    expect(state).to_have_text("loaded")
    expect(page.locator("#model option:checked")).to_have_text("tiny (loaded)")
    page.get_by_role("button", name="Unload").click()
    expect(state).to_have_text("not loaded")


def test_shows_that_a_model_is_being_loaded(page: Page) -> None:
    """The page asks again until the model is loaded."""
    states = ["loading", "loading", "loaded"]

    def change(route: Route) -> None:
        found = route.fetch().json()
        found["data"][0]["status"]["value"] = states.pop(0) if len(states) > 1 else states[0]
        route.fulfill(json=found)

    page.route("**/v1/models", change)
    page.reload()
    expect(page.locator("#model-state")).to_have_text("loading ...")
    expect(page.get_by_role("button", name="Unload")).to_be_disabled()
    expect(page.locator("#model-state")).to_have_text("loaded")


def test_tabs_without_a_model_are_disabled(page: Page) -> None:
    def change(route: Route) -> None:
        found = route.fetch().json()
        found["data"] = [model for model in found["data"] if model["task"] == "speech"]
        route.fulfill(json=found)

    page.route("**/v1/models", change)
    page.reload()
    expect(page.get_by_role("tab", name="Chat")).to_be_disabled()
    expect(page.get_by_role("tab", name="Images")).to_be_disabled()
    expect(page.locator("#panel-audio")).to_be_visible()
