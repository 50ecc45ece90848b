"""The page under keys, mouse and fingers, on a desktop and on a phone, and for who does not see it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from torchopt_course.playground import page

from ..browser import Browser

pytest.importorskip("sympy")
pytestmark = pytest.mark.slow
PLACE = """
const box = document.getElementById("start").querySelector(".ring").getBoundingClientRect();
return [box.x + box.width / 2, box.y + box.height / 2];
"""
ENDS = "return paths.map((path) => [path.x.at(-1), path.y.at(-1)]);"


@pytest.fixture(scope="module")
def text() -> str:
    return page()


@pytest.fixture
def opened(browser: Browser, text: str) -> Browser:
    browser.show(text)
    return browser


def test_the_mouse_drags_the_start_and_everything_follows(opened: Browser) -> None:
    x, y = opened.run(PLACE)
    before = opened.run(ENDS)
    opened.mouse((x, y), (x + 40, y + 10), (x + 90, y + 60))
    assert opened.run(PLACE) == pytest.approx([x + 90, y + 60], abs=2)
    assert opened.run("return paths.every((path) => path.x[0] === state.start[0]);")
    assert all(old != new for old, new in zip(before, opened.run(ENDS), strict=True))
    # Beside the handle: the start comes there.
    opened.mouse((x + 200, y + 20))
    assert opened.run(PLACE) == pytest.approx([x + 200, y + 20], abs=2)


def test_a_finger_drags_the_start_and_scrolls_beside_it(browser: Browser, text: str) -> None:
    browser.show(text, width=390, height=844, phone=True)
    assert browser.run("return document.documentElement.scrollWidth;") == 390  # nothing sticks out
    x, y = browser.run(PLACE)
    browser.finger((x, y), (x + 30, y + 20), (x + 60, y + 40))
    assert browser.run(PLACE) == pytest.approx([x + 60, y + 40], abs=2)
    browser.finger((x + 150, y + 50))
    assert browser.run(PLACE) == pytest.approx([x + 150, y + 50], abs=2)
    # What fingers touch is large enough, and the picture stays in sight while sliders move below it.
    small = browser.run("""
    return [...document.querySelectorAll("button, input[type=range], select, .landscape")]
      .filter((each) => each.offsetParent && each.getBoundingClientRect().height < 24)
      .map((each) => each.outerHTML);
    """)
    assert small == []
    browser.run("scrollTo(0, 900);")
    assert browser.run("return document.getElementById('map').getBoundingClientRect().top;") >= 0


def test_keys_alone_reach_and_move_everything(opened: Browser) -> None:
    reached = []
    for _ in range(60):
        opened.key("Tab")
        name = opened.run("""
        const e = document.activeElement;
        return e.id || e.getAttribute("aria-label") || e.labels?.[0]?.textContent || e.textContent;
        """)
        if name in reached:
            continue
        if name == "start":
            before = opened.run("return [...state.start];")
            opened.key("ArrowRight", times=3)
            opened.key("ArrowUp", shift=True)
            after = opened.run("return [...state.start];")
            scale = opened.run("return frame.scale;")  # of a pixel
            assert after == pytest.approx([before[0] + 24 * scale, before[1] + 40 * scale], abs=0.01)
        if name == "time":
            opened.key("ArrowRight", times=2)
            assert opened.run("return state.now;") == 27
        reached.append(name)
    assert {"start", "time", "play", "add"} <= set(reached)
    missed = opened.run("""
    return [...document.querySelectorAll("button, input, select, summary, a")]
      .filter((e) => e.checkVisibility() && !e.disabled && e.type !== "radio" && e.tabIndex < 0).length;
    """)
    assert missed == 0
    # A slider that has the focus.
    opened.run("document.querySelector('.card input[type=range]').focus();")
    before = opened.run("return state.walkers[0].options.lr;")
    opened.key("ArrowLeft", times=5)
    assert opened.run("return state.walkers[0].options.lr;") < before
    # Landscapes are one group of radio buttons.
    opened.run("document.querySelector('#landscapes input:checked').focus();")
    opened.key("ArrowRight")
    assert opened.run("return state.landscape.name;") == "Saddle"


def properties(node: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each["value"].get("value") for each in node.get("properties", [])}


def test_everything_has_a_name_for_who_does_not_see_it(opened: Browser) -> None:
    nodes = opened.ask("Accessibility.getFullAXTree")["nodes"]
    used = [node for node in nodes if not node.get("ignored")]
    roles = ("button", "slider", "checkbox", "radio", "combobox", "link", "DisclosureTriangle")
    controls = [node for node in used if node["role"]["value"] in roles]
    assert len(controls) > 25
    assert [node for node in controls if not node.get("name", {}).get("value")] == []
    # A slider says its value itself; what is written beside it would say it twice.
    live = [properties(node).get("live") for node in used if node["role"]["value"] == "status"]
    assert live.count("polite") == 1
    texts = opened.run("""
    const sliders = document.querySelectorAll("[role=slider], input[type=range]");
    return [...sliders].map((slider) => slider.getAttribute("aria-valuetext"));
    """)
    assert {"x −9, y 2", "step 25 of 150", "0.9", "40"} <= set(texts)
    assert None not in texts
    opened.run("await new Promise((done) => setTimeout(done, 900));")
    status = opened.run("return document.querySelector('[aria-live=polite]').textContent;")
    assert status.startswith("Ravine, from x −9, y 2. SGD: ")
    assert status.count("above the minimum after 150 steps") == 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(scheme: str, opened: Browser) -> None:
    """At least 4.5 to 1 (WCAG AA) against the first ground behind it that is not transparent."""
    opened.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    opened.settle()
    ground = opened.run("return getComputedStyle(document.body).backgroundColor;")
    assert (ground == "rgb(21, 25, 29)") == (scheme == "dark")
    worst = opened.run("""
    const light = (color) => {
      const most = color.startsWith("color(srgb") ? 1 : 255;
      const parts = color.match(/[\\d.]+/g).slice(0, 3).map((v) => v / most);
      const [r, g, b] = parts.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (e) => {
      for (; e; e = e.parentElement) {
        const color = getComputedStyle(e).backgroundColor;
        if (!/, 0\\)$/.test(color)) return color;
      }
      return "rgb(255, 255, 255)";
    };
    let worst = [99, ""];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const e = node.parentElement, style = getComputedStyle(e);
      if (!node.textContent.trim() || !e.checkVisibility() || e.closest("script, style, :disabled")) continue;
      const ink = e.namespaceURI.endsWith("svg") ? style.fill : style.color;
      const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x);
      const contrast = (a + 0.05) / (b + 0.05);
      if (contrast < worst[0]) worst = [contrast, `${node.textContent} ${ink} on ${ground(e)}`];
    }
    return worst;
    """)
    assert worst[0] >= 4.5, worst


def test_cards(opened: Browser) -> None:
    opened.run("document.getElementById('add').click();")
    opened.settle()
    assert opened.run("return [state.walkers.length, cards.length, paths.length, add.hidden];") == [
        4,
        4,
        4,
        True,
    ]
    opened.run("document.querySelector('.remove').click();")
    opened.settle()
    assert opened.run("return state.walkers.map(({optimizer}) => optimizer.name);")[0] == "Momentum"
    opened.run("""
    const select = document.querySelector(".head select");
    select.value = "AdamW";
    select.dispatchEvent(new Event("change"));
    """)
    opened.settle()
    assert (
        opened.run("return [state.walkers[0].optimizer.name, document.activeElement.value];") == ["AdamW"] * 2
    )
    opened.run("document.querySelector('.switch input').click();")
    opened.settle()
    assert opened.run("return 'max_exp_avg_sq' in paths[0].states[0][0];")
    opened.run("document.getElementById('show-code').open = true;")
    opened.settle()
    code = opened.run("return document.getElementById('code').textContent;")
    assert "xp.maximum(max_exp_avg_sq, exp_avg_sq)" in code
    assert "Math.max(state_max_exp_avg_sq," in code


def test_a_diverging_walk_and_refused_options_are_said(opened: Browser) -> None:
    opened.run("state.walkers[0].options.lr = 1; changed();")
    opened.settle()
    results = "return [...document.querySelectorAll('.result')].map((each) => each.textContent);"
    assert opened.run(results)[0].startswith("Diverged in step ")
    opened.run("state.walkers[0].options.nesterov = true; changed();")
    opened.settle()
    assert opened.run(results)[0] == (
        "Python refuses these options: Nesterov momentum requires a momentum and zero dampening"
    )


def test_playing(opened: Browser) -> None:
    opened.run("document.getElementById('play').click(); await new Promise((done) => setTimeout(done, 400));")
    assert 25 < opened.run("return state.now;") < 150
    assert opened.run("return document.getElementById('play').textContent;") == "Pause"
    opened.run("document.getElementById('play').click();")
    # With reduced motion: a new picture each second, at most.
    opened.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    pictures = opened.run("""
    const seen = new Set();
    document.getElementById("play").click();
    for (let i = 0; i < 24; i++) {
      await new Promise((done) => setTimeout(done, 50));
      seen.add(state.now);
    }
    document.getElementById("play").click();
    return seen.size;
    """)
    assert pictures <= 3


def test_the_address_keeps_what_is_set(opened: Browser, browser: Browser, text: str) -> None:
    opened.run(
        "enter(named(LANDSCAPES, 'Beale')); state.walkers[2].options['betas.0'] = 0.5;"
        "state.noise = 0.1; changed();"
    )
    opened.run("await new Promise((done) => setTimeout(done, 700));")
    ends, address = opened.run(ENDS), opened.run("return location.hash;")
    browser.show(text, address=address)
    assert browser.run("return state.landscape.name;") == "Beale"
    assert browser.run(ENDS) == ends
    for broken in (
        "#nonsense",
        "#" + quote(json.dumps({"landscape": "Nowhere"})),
        "#" + quote('{"walkers": []}'),
    ):
        browser.show(text, address=broken)
        assert browser.run("return state.landscape.name;") == "Ravine"


def test_nothing_is_loaded(opened: Browser) -> None:
    assert opened.requests() == []
