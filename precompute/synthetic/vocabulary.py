"""What the topics of a synthetic atlas are called: 16 domains of 16 things, each in several guises."""

from __future__ import annotations

DOMAINS = {
    "street": "car bus lorry tram taxi scooter kerb crossing "
    "lamppost hydrant bollard signpost shopfront awning bench bin",
    "water": "boat ferry kayak pier lighthouse buoy harbour canal waterfall fountain dock anchor raft wave reef lagoon",
    "air": "plane helicopter glider balloon kite drone airship parachute "
    "runway hangar propeller cockpit rocket cloud contrail windsock",
    "pets": "dog cat hamster rabbit parrot canary goldfish tortoise "
    "gecko ferret puppy kitten aquarium kennel collar leash",
    "farm": "cow horse sheep goat pig hen duck goose barn tractor haystack fence silo orchard plough donkey",
    "wild": "lion tiger bear wolf fox deer zebra giraffe elephant monkey snake crocodile owl eagle penguin seal",
    "insects": "bee wasp butterfly moth beetle ant spider dragonfly "
    "grasshopper ladybird snail worm caterpillar cobweb hive cricket",
    "fruit": "apple pear banana orange lemon cherry grape melon peach plum strawberry mango kiwi fig coconut pineapple",
    "meals": "pizza burger sandwich soup salad pasta sushi cake bread cheese omelette pancake stew taco curry pie",
    "kitchen": "kettle pan oven fridge toaster knife fork spoon plate bowl mug jug whisk ladle colander sieve",
    "rooms": "chair table sofa bed lamp curtain carpet shelf "
    "wardrobe mirror clock desk staircase fireplace window door",
    "music": "guitar piano violin drum trumpet flute harp cello "
    "accordion saxophone banjo microphone organ tambourine bell gramophone",
    "sport": "football racket bicycle skateboard surfboard ski sledge snowboard "
    "goal stadium glove helmet javelin hurdle trophy dumbbell",
    "clothes": "hat scarf coat shirt dress skirt boot sandal glasses umbrella handbag backpack necklace watch tie sock",
    "plants": "palm oak pine fern cactus tulip rose daisy sunflower ivy moss mushroom bamboo willow hedge meadow",
    "tools": "hammer saw drill ladder wrench screwdriver bucket spade rake axe anvil pulley toolbox lathe vice rope",
}
GUISES = (
    *("red", "blue", "green", "yellow", "striped", "dotted", "checked", "wooden"),
    *("old", "broken", "tiny", "huge", "shiny", "blurred", "distant", "crowded"),
)
PICTURED = ("a photo of", "a picture of", "a view of", "a close shot of")


def things() -> tuple[list[str], list[str]]:
    """The names of 256 things, and the domain of each."""
    named = [(thing, domain) for domain, line in DOMAINS.items() for thing in line.split()]
    return [thing for thing, _ in named], [domain for _, domain in named]
