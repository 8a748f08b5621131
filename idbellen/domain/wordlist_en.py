"""The English control words: 512 everyday nouns of which no two look or sound alike.

Any change gives the sessions under way other words. ``tests/unit/test_words.py`` holds the rules for the list.
"""

WORDS = tuple(
    """
    accordion acorn aeroplane airport album almond alpaca alphabet anchor anorak antelope antler apricot apron
    aquarium armchair artichoke artist astronaut attic aubergine avocado badger balcony balloon bamboo banjo
    barometer barrel basket bathtub battery beehive beetle beetroot belt bench bicycle birdhouse biscuit bison
    blanket blender blossom blouse bluebell blueberry boat bookcase bookmark bottle boulder bowl bracelet branch
    bread brick bridge broccoli bronze brooch broom brush bucket buffalo builder bumblebee buttercup butterfly
    button cabbage cabin cable calendar camera camper campsite canary candle canoe caramel caravan cardigan carpet
    carriage carrot castle cave ceiling celery cellar cello cheese chestnut chimney chipmunk chocolate cinema
    cinnamon clarinet classroom clock cloud clover cobweb coffee comet computer confetti cooker coral corridor
    cottage cotton courgette crayon cricket croissant crystal cucumber cupboard cupcake currant curtain cushion
    custard daffodil dancer diamond diary dinosaur dishcloth doll dolphin domino doorbell doormat doorstep doughnut
    dragonfly drawer drill driver drum eagle earring emerald engine envelope factory falcon feather fence ferry
    field film fireplace fisherman flagpole flamingo flute folder football footpath footprint forest fountain fox
    freezer frog funnel furniture garage gardener garlic gate gecko ginger giraffe glacier glider globe glue gold
    guitar hammer hammock hamster handbag harbour harp hat hawk haystack hazelnut heater hedgehog hill hinge
    honeycomb horse hotel iceberg igloo iguana ink iron island jacket jelly jigsaw juggler jumper jungle kangaroo
    kayak kettle keyboard keyhole kiosk kitchen kite kiwi koala ladder ladybird lagoon lampshade lantern laptop
    lasagne lavender lawn lemonade lentil leopard letterbox lettuce lever library lightning lizard llama lobster
    lollipop lorry lounge lunchbox macaroni magazine magician magnet magpie mammoth mandarin mandolin mango maple
    marble market marmalade marzipan meadow medal meerkat meringue mermaid milkshake mint mirror mitten moon
    motorbike motorway muffin museum mushroom napkin necklace nectarine newspaper noodle notebook nutmeg ocean olive
    omelette onion orchard orchestra orchid oregano ostrich otter oven overcoat oyster page paint palace palm
    pancake panda panther pantry papaya paperclip paprika parasol parcel park parsley parsnip pasta pavement peacock
    pebble pelican pencil penguin pepper petal pheasant photo piano pigeon pilot pineapple pizza planet plastic
    plate platform plumber pocket pond popcorn porcupine porridge postbox postcard postman potato pretzel printer
    pudding puddle pulley pumpkin puppet purse pyramid quilt rabbit radiator radio radish railway rainbow raincoat
    raisin raspberry raven reindeer rhubarb ribbon robot rope rucksack rug ruler saddle sailor salad salt sandal
    sandpaper sandpit sandwich sapphire satchel satellite saucepan saucer saxophone scarecrow scarf school scooter
    scorpion seagull seaweed seesaw shadow shelf shoelace shore shovel shower signpost silk silver skirt skylark
    sledge sleeve slipper smoothie snowball snowflake snowman sofa soup spaceship spaghetti sparrow spider spinach
    sponge spoon squirrel stadium staircase stapler starfish starling station statue sticker stopwatch stork stream
    string submarine sugar suitcase sunflower sunrise surfboard swan sweater sweetcorn syrup tadpole tangerine tape
    taxi teacher teacup teapot telephone telescope theatre thimble thunder ticket tiger toadstool toaster tomato
    toolbox torch toucan tower tractor trainer tram treasure treehouse trolley trombone trophy trowel truck trumpet
    tuba tulip turnip turtle ukulele umbrella unicorn uniform valley vanilla vase velvet veranda vinegar violin
    volcano waffle waistcoat waiter wallet walnut wardrobe warehouse waterfall watermill wheel whistle willow
    windmill window wolf wood wrench xylophone yacht yoghurt zebra
    """.split()  # noqa: SIM905 - a list of literals takes 512 lines
)
